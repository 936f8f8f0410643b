"""Prepare, result, extend and retract: what the lifted functions make of a request's committed length and counters."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from operator import attrgetter

from ...recorders.schema import NONE32, Kind
from ..decisions import GOES_ON, LOST
from ..quantity import Quantity
from .batch import Batch
from .missing import CannotRunError
from .request import Grammar, Request, allocated_lens, committed_lens
from .result import Result
from .roles import Role
from .stage import Stage
from .standin import LIMIT, UNKNOWN_LEN, known
from .tailing import TailRows
from .tape import Tape, present, tokens
from .tracks import Place, Tracks

# Tracks of the committed length, of the settled one and, where slots are counted, of the allocated one; as far as wanted.
_Books = tuple["array[int] | None", "array[int] | None", "array[int] | None"]
_HISTOGRAM = Place(Quantity.SPEC_HISTOGRAM, Kind.FINISH, False)


class Lives:
    """Claims are told from what this path's prepare added, never from the recording."""

    def __init__(self, stage: Stage, tape: Tape, tracks: Tracks) -> None:
        self._stage, self._tape, self._tracks = stage, tape, tracks
        self._extended, self._retracted = self._after(Kind.EXTEND), self._after(Kind.RETRACT)
        self._preparing, self._prepared = self._before(Kind.PREPARE), self._after(Kind.PREPARE)
        self._resolving, self._resolved = self._before(Kind.RESULT), self._after(Kind.RESULT)
        self._finishing = self._before(Kind.FINISH)
        self._counts = [
            (tracks.track(Place(quantity, Kind.RESULT, True)), attrgetter(name))
            for quantity, name in stage.counters.items()
            if quantity in tracks.wanted
        ]
        # Seeded, and not extended since: a prepare may go by their lengths alone, but slots they had more of they keep.
        self._unsized: dict[int, Request] = {}
        self._launched: dict[int, dict[int, tuple[int, int] | None]] = {}  # by launch and qid
        self._results = tape.rows_of[Kind.RESULT]
        self._tokens, self._tails = tape.once(tokens), tape.once(TailRows)
        self._tails_left = set(self._tails.rows)  # not played yet
        if self._tails.rows and not stage.has(Role.TAIL):
            raise CannotRunError(
                f"cannot run: {stage.books.name} commits nothing of a request that is decoded beside a prefill chunk, at "
                "any place known; under speculation sglang does that from 0.5.19 on, and this recording has "
                f"{len(self._tails.rows)} such results"
            )
        for quantity in (Quantity.SPEC_VERIFY_CT, Quantity.SPEC_ACCEPTED_DRAFTS):
            if quantity not in stage.counters:
                tracks.reasons[quantity] = (
                    f"{stage.books.name} resolve keeps no counter known for it"
                )

    def _before(self, kind: Kind) -> _Books:
        return self._books(kind, after=False)

    def _after(self, kind: Kind) -> _Books:
        return self._books(kind, after=True)

    def _books(self, kind: Kind, *, after: bool) -> _Books:
        raw, settled, allocated = (
            Place(quantity, kind, after)
            for quantity in (
                Quantity.KV_COMMITTED_LEN,
                Quantity.KV_COMMITTED_LEN_SETTLED,
                Quantity.KV_ALLOCATED_LEN,
            )
        )
        track, has_slots = self._tracks.wanted_track, kind in (Kind.PREPARE, Kind.FINISH)
        return track(raw), track(settled), track(allocated) if has_slots else None

    def extend(self, ref: int) -> None:
        table, rows = self._tape.rows_of[Kind.EXTEND], self._tape.rows[Kind.EXTEND][ref]
        reqs = [self._stage.requests[table.qid[row]] for row in rows]
        for row, request in zip(rows, reqs, strict=True):
            request.registers_kv()
            request.kv_committed_len = table.seq_len[row]
            request.kv_allocated_len = table.allocated[row]
            self._stage.holds_kv_again(request)
            request.is_retracted = False
            fresh = table.output_len[row] <= self._tape.recording.outputs_before_verify
            if not request.seen and fresh:
                self._stage.set_counters(request, 0)
            self._begins_anew(request)
            self._unsized.pop(request.qid, None)
        self._note(self._extended, rows, reqs)

    def seed(self, ref: int) -> None:
        """Under way where the recording begins. How much it has allocated is its own release's affair."""
        table = self._tape.rows_of[Kind.SEED]
        for row in self._tape.rows[Kind.SEED][ref]:
            if table.begins[row]:
                request = self._stage.requests[table.qid[row]]
                request.registers_kv()
                request.kv_committed_len = table.seq_len[row]
                self._stage.holds_kv_again(request)
                self._begins_anew(request)
                self._unsized[request.qid] = request

    def retract(self, ref: int) -> None:
        request = self._stage.requests[self._tape.events[Kind.RETRACT].qid[ref]]
        request.lets_kv_go()
        self._stage.call(Role.RETRACT, request)
        self._begins_anew(request)
        self._note(self._retracted, range(ref, ref + 1), [request])

    def prepare(self, ref: int, batch: Batch) -> None:
        rows, reqs = self._tape.rows[Kind.PREPARE][ref], batch.reqs
        before = self._note(self._preparing, rows, reqs)
        table = self._tape.events[Kind.PREPARE]
        self._stage.settings.drafts(
            present(table.num_steps[ref]), present(table.num_draft_tokens[ref])
        )
        arguments = (batch.spec_info or self._stage.draft_input(()), batch)
        role = self._stage.prepare
        self._stage.call(role, *arguments[0 if self._stage.is_method(role) else 1 :])
        for request in self._unsized.values():
            request.kv_allocated_len = UNKNOWN_LEN
        for request, was, now in zip(reqs, before, committed_lens(reqs), strict=True):
            claim = now - was
            request.claims += claim
            request.prepared, request.seen = (request.life, claim), True
        self._note(self._prepared, rows, reqs)

    def launch(self, ref: int) -> None:
        launch, requests = self._tape.events[Kind.LAUNCH].launch[ref], self._stage.requests
        qids = self._tape.qids(Kind.LAUNCH, ref)
        self._launched[launch] = {qid: requests[qid].prepared for qid in qids}

    def result(self, ref: int) -> None:
        """A decode result; the first token of an extend resolves nothing."""
        rows = self._tape.rows[Kind.RESULT][ref]
        if not rows or self._results.accept_len[rows.start] == NONE32:
            for row in rows:
                self._tail(row)
            return
        reqs = [self._arrives(row) for row in rows]
        self._note(self._resolving, rows, reqs)
        batch = self._stage.batch(reqs, ())
        batch.has_grammar = any(request.grammar is not None for request in reqs)
        self._stage.call(Role.RESOLVE, self._stage.scheduler, self._result(ref), batch)
        self._close(rows, self._tape.events[Kind.RESULT].launch[ref], reqs)

    def _tail(self, row: int) -> None:
        """If it was decoded beside a prefill chunk. Whether its token ends it is the recording's word."""
        if row not in self._tails_left:
            return
        self._tails_left.remove(row)
        request, finish = self._arrives(row), self._tails.finish.get(row, GOES_ON)

        def decide() -> None:
            request.finished_reason = "recorded" if finish >= 0 else None

        self._note(self._resolving, range(row, row + 1), [request])
        batch = self._stage.batch([request], ())
        batch.decoding_reqs = [request]
        self._stage.call(Role.TAIL, self._stage.scheduler, batch, request, decide)
        if finish == LOST:
            request.kv_committed_len = UNKNOWN_LEN
        self._close(range(row, row + 1), self._tails.launch[row], [request])

    def _close(self, rows: range, launch: int, reqs: Sequence[Request]) -> None:
        """Their results have answered what was claimed for them."""
        launched = self._launched.get(launch, {})
        for request in reqs:
            prepared = launched.get(request.qid)
            if prepared is not None and prepared[0] == request.life:
                request.claims -= prepared[1]
        self._note(self._resolved, rows, reqs)
        for track, count in self._counts:
            _write(track, rows, list(map(count, reqs)))

    def _arrives(self, row: int) -> Request:
        """The request as it was when its result began to be processed: decisions are fed, books are not."""
        table = self._results
        request = self._stage.requests[table.qid[row]]
        request.seen = True
        request.is_retracted = table.is_retracted[row] == 1
        request.finished_reason = "recorded" if table.finished[row] == 1 else None
        # 0 where it was not complete; recordings of format 1 do not say, and then it is what ended the run.
        done = table.grammar_done[row] != 0
        grammar = self._tape.has_grammar[request.qid]
        request.grammar = Grammar(table.num_emitted[row], done=done) if grammar else None
        return request

    def _result(self, ref: int) -> Result:
        table, rows = self._tape.events[Kind.RESULT], self._tape.rows[Kind.RESULT][ref]
        recorded, workers = present(table.stride[ref]), present(table.worker_stride[ref])
        width = table.num_tokens[ref] // len(rows)
        accept = self._results.accept_len[rows.start : rows.stop]
        stride = recorded or workers or width or max(accept)
        # Lengths go by how many tokens there are; which ones, where they were not captured, bears on none.
        tokens = self._tokens[ref] or [0] * (stride * len(rows))
        self._stage.scheduler.draft_worker.speculative_num_draft_tokens = workers or stride
        return Result(tokens, accept, stride, present(table.num_non_draft[ref]))

    def _note(self, books: _Books, rows: range, reqs: Sequence[Request]) -> list[int]:
        """Returns the committed lengths. Four times for every accepted run, so whole batches at once."""
        committed, settled, allocated = books
        raw = committed_lens(reqs)
        if committed is not None:
            _write(committed, rows, raw)
        if settled is not None:
            bare = [
                length - request.claims if -LIMIT < length < LIMIT else length
                for length, request in zip(raw, reqs, strict=True)
            ]
            _write(settled, rows, bare)
        if allocated is not None:
            _write(allocated, rows, allocated_lens(reqs))
        return raw

    def finish(self, ref: int) -> None:
        request = self._stage.requests[self._tape.events[Kind.FINISH].qid[ref]]
        if ref in self._tails.ended:
            self._tail(self._tails.ended[ref])
        self._note(self._finishing, range(ref, ref + 1), [request])
        counted = self._stage.counters.get(Quantity.SPEC_VERIFY_CT)
        if self._stage.histogram and counted and known(getattr(request, counted)):
            steps: list[int] = getattr(request, self._stage.histogram)
            drafts = sum(i * count for i, count in enumerate(steps))
            self._tracks.put_parts(_HISTOGRAM, ref, sum(steps), drafts)
        self._ends(ref, request)

    def _ends(self, ref: int, request: Request) -> None:
        """The recorded decision: by it go those who collect its rows and those who release its KV."""
        table = self._tape.events[Kind.FINISH]
        request.finished_reason = "recorded"
        request.finished_len = present(table.finished_len[ref])
        request.origin_input_ids = range(table.origin_len[ref])
        request.output_ids = range(table.output_len[ref])
        request.reasoning_tokens = present(table.reasoning_tokens[ref]) or 0
        request.return_routed_experts = table.return_routed_experts[ref] == 1
        request.routed_experts_start_len = present(table.start_len[ref]) or 0

    @staticmethod
    def _begins_anew(request: Request) -> None:
        request.life += 1
        request.claims, request.prepared, request.seen = 0, None, True


def _write(track: array[int], rows: range, values: list[int]) -> None:
    """What depends on something unknown is left out."""
    assert len(rows) == len(values), "a batch changed while its lengths were noted"
    if min(values, default=0) > -LIMIT and max(values, default=0) < LIMIT:
        track[rows.start : rows.stop] = array("q", values)
        return
    for row, value in zip(rows, values, strict=True):
        if known(value):
            track[row] = value
