"""Prepare, result, extend and retract: what the lifted functions make of a request's committed length and counters."""

from __future__ import annotations

from ...recorders.schema import NONE32, Kind
from ..quantity import Quantity
from .batch import Batch
from .request import Grammar, Request
from .result import Result
from .roles import Role
from .stage import Stage
from .tape import Tape, present
from .tracks import Place, Tracks


class Lives:
    """Claims are told from what this path's prepare added, never from the recording."""

    def __init__(self, stage: Stage, tape: Tape, tracks: Tracks) -> None:
        self._stage, self._tape, self._tracks = stage, tape, tracks
        self._launched: dict[tuple[int, int], tuple[int, int] | None] = {}  # (launch, qid)
        self._tokens = tape.tokens()
        for quantity in (Quantity.SPEC_VERIFY_CT, Quantity.SPEC_ACCEPTED_DRAFTS):
            if quantity not in stage.counters:
                tracks.reasons[quantity] = (
                    f"{stage.books.name} resolve keeps no counter known for it"
                )

    def extend(self, ref: int) -> None:
        rows = self._tape.rows_of[Kind.EXTEND]
        for row in self._tape.rows[Kind.EXTEND][ref]:
            request = self._stage.requests[rows.qid[row]]
            request.registers_kv()
            request.kv_committed_len = rows.seq_len[row]
            request.kv_allocated_len = rows.allocated[row]
            request.is_retracted = False
            if not request.seen and rows.output_len[row] == 0:
                self._stage.set_counters(request, 0)
            self._begins_anew(request)
            self._note(Kind.EXTEND, row, request, after=True)

    def retract(self, ref: int) -> None:
        request = self._stage.requests[self._tape.events[Kind.RETRACT].qid[ref]]
        request.lets_kv_go()
        self._stage.call(Role.RETRACT, request)
        self._begins_anew(request)
        self._note(Kind.RETRACT, ref, request, after=True)

    def prepare(self, ref: int, batch: Batch) -> None:
        rows = self._tape.rows[Kind.PREPARE][ref]
        before = [
            self._note(Kind.PREPARE, row, request, after=False)
            for row, request in zip(rows, batch.reqs, strict=True)
        ]
        arguments = (batch.spec_info or self._stage.draft_input(()), batch)
        self._stage.call(
            Role.PREPARE, *arguments[0 if self._stage.is_method(Role.PREPARE) else 1 :]
        )
        for row, request, was in zip(rows, batch.reqs, before, strict=True):
            claim = request.kv_committed_len - was
            request.claims += claim
            request.prepared, request.seen = (request.life, claim), True
            self._note(Kind.PREPARE, row, request, after=True)

    def launch(self, ref: int) -> None:
        launch = self._tape.events[Kind.LAUNCH].launch[ref]
        for qid in self._tape.qids(Kind.LAUNCH, ref):
            self._launched[launch, qid] = self._stage.requests[qid].prepared

    def result(self, ref: int) -> None:
        """A decode result; the first token of an extend resolves nothing."""
        table, rows = self._tape.rows_of[Kind.RESULT], self._tape.rows[Kind.RESULT][ref]
        if not rows or table.accept_len[rows.start] == NONE32:
            return
        reqs = [self._arrives(row) for row in rows]
        for row, request in zip(rows, reqs, strict=True):
            self._note(Kind.RESULT, row, request, after=False)
        batch = self._stage.batch(reqs, ())
        batch.has_grammar = any(request.grammar is not None for request in reqs)
        self._stage.call(Role.RESOLVE, self._stage.scheduler, self._result(ref), batch)
        launch = self._tape.events[Kind.RESULT].launch[ref]
        for row, request in zip(rows, reqs, strict=True):
            prepared = self._launched.get((launch, request.qid))
            if prepared is not None and prepared[0] == request.life:
                request.claims -= prepared[1]
            self._note(Kind.RESULT, row, request, after=True)
            self._count(row, request)

    def _arrives(self, row: int) -> Request:
        """The request as it was when its result began to be processed: decisions are fed, books are not."""
        table = self._tape.rows_of[Kind.RESULT]
        request = self._stage.requests[table.qid[row]]
        request.seen = True
        request.is_retracted = table.is_retracted[row] == 1
        request.finished_reason = "recorded" if table.finished[row] == 1 else None
        grammar = self._tape.has_grammar[request.qid]
        request.grammar = Grammar(table.num_emitted[row]) if grammar else None
        return request

    def _result(self, ref: int) -> Result:
        table, rows = self._tape.events[Kind.RESULT], self._tape.rows[Kind.RESULT][ref]
        recorded, workers = present(table.stride[ref]), present(table.worker_stride[ref])
        width = table.num_tokens[ref] // len(rows)
        stride = recorded or workers or width
        self._stage.scheduler.draft_worker.speculative_num_draft_tokens = workers or stride
        accept = self._tape.rows_of[Kind.RESULT].accept_len[rows.start : rows.stop]
        return Result(self._tokens[ref], accept, stride, present(table.num_non_draft[ref]))

    def _note(self, kind: Kind, row: int, request: Request, *, after: bool) -> int:
        raw = request.kv_committed_len
        self._tracks.put(Place(Quantity.KV_COMMITTED_LEN, kind, after), row, raw)
        settled = Place(Quantity.KV_COMMITTED_LEN_SETTLED, kind, after)
        self._tracks.put(settled, row, raw - request.claims)
        return raw

    def finish(self, ref: int) -> None:
        request = self._stage.requests[self._tape.events[Kind.FINISH].qid[ref]]
        self._note(Kind.FINISH, ref, request, after=False)

    def _count(self, row: int, request: Request) -> None:
        for quantity, name in self._stage.counters.items():
            self._tracks.put(Place(quantity, Kind.RESULT, True), row, getattr(request, name))

    @staticmethod
    def _begins_anew(request: Request) -> None:
        request.life += 1
        request.claims, request.prepared, request.seen = 0, None, True
