"""Replay committed lengths and counters: the lifted prepare, resolve and retract change them."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from ...recorders.schema import NONE32, Kind
from ..decisions import GOES_ON, LOST
from ..quantity import Quantity
from .claims import Claims
from .missing import CannotRunError
from .replay_state import ReplayState
from .roles import Role
from .standins.base import LIMIT, UNKNOWN_LEN, known
from .standins.batch import Batch
from .standins.request import ENDED, Grammar, Request, allocated_lens, committed_lens
from .standins.result import GenerationBatchResult
from .tailing import TailRows
from .tape import Tape, present, tokens, widths
from .tracks import TrackKey, Tracks

# The tracks of the committed and the settled length and, for kinds with slots, of the allocated
# length. None: not wanted.
_LengthTracks = tuple["array[int] | None", "array[int] | None", "array[int] | None"]
_HISTOGRAM = TrackKey(Quantity.SPEC_HISTOGRAM, Kind.FINISH, False)


class CommitReplay:
    """Plays prepares, results, extends and retracts.

    `claims` is None if the settled length is not wanted.
    """

    def __init__(self, state: ReplayState, tape: Tape, tracks: Tracks) -> None:
        self._state, self._tape, self._tracks = state, tape, tracks
        settles = Quantity.KV_COMMITTED_LEN_SETTLED in tracks.wanted
        self.claims = Claims(state, tape) if settles else None
        self._extended, self._retracted = self._after(Kind.EXTEND), self._after(Kind.RETRACT)
        self._preparing, self._prepared = self._before(Kind.PREPARE), self._after(Kind.PREPARE)
        self._resolving, self._resolved = self._before(Kind.RESULT), self._after(Kind.RESULT)
        self._finishing = self._before(Kind.FINISH)
        self._counts = [
            (tracks.track(TrackKey(quantity, Kind.RESULT, True)), attrgetter(name))
            for quantity, name in state.counters.items()
            if quantity in tracks.wanted
        ]
        # Seeded and not extended since. A prepare computes their slots from their lengths alone,
        # but a request keeps any slots beyond that, so what it has allocated stays unknown.
        self._unsized: dict[int, Request] = {}
        self._drafted = self._histogram_of()
        # Stored here because looking up an enum member takes longer than most of the work done with
        # it.
        self._extends, self._results = tape.rows_of[Kind.EXTEND], tape.rows_of[Kind.RESULT]
        self._answers, self._finishes = tape.events[Kind.RESULT], tape.events[Kind.FINISH]
        self._prepares, self._retracts = tape.events[Kind.PREPARE], tape.events[Kind.RETRACT]
        self._extend_rows, self._result_rows = tape.rows[Kind.EXTEND], tape.rows[Kind.RESULT]
        self._prepare_rows, self._has_grammar = tape.rows[Kind.PREPARE], tape.requests.has_grammar
        self._fresh = tape.recording.outputs_before_verify
        self._tokens, self._widths = tape.once(tokens), tape.once(widths)
        self._tails = tape.once(TailRows)
        self._tails_left = set(self._tails.rows)  # not yet played
        if self._tails.rows and not state.has(Role.TAIL):
            raise CannotRunError(
                f"cannot run: {state.program.name} commits nothing, at any known place, for a request that is decoded "
                "beside a prefill chunk. With speculative decoding, sglang does that from 0.5.19 on, and this recording has "
                f"{len(self._tails.rows)} such results"
            )
        for quantity in (Quantity.SPEC_VERIFY_CT, Quantity.SPEC_ACCEPTED_DRAFTS):
            if quantity not in state.counters:
                tracks.reasons[quantity] = (
                    f"{state.program.name} resolve keeps no known counter for it"
                )

    def _histogram_of(self) -> Callable[[Request], Any] | None:
        """Return a reader of a request's verify count and histogram; None if it is not wanted or not kept."""
        counter, histogram = (
            self._state.counters.get(Quantity.SPEC_VERIFY_CT),
            self._state.histogram,
        )
        if not counter or not histogram or Quantity.SPEC_HISTOGRAM not in self._tracks.wanted:
            return None
        return attrgetter(counter, histogram)

    def _before(self, kind: Kind) -> _LengthTracks:
        return self._length_tracks(kind, after=False)

    def _after(self, kind: Kind) -> _LengthTracks:
        return self._length_tracks(kind, after=True)

    def _length_tracks(self, kind: Kind, *, after: bool) -> _LengthTracks:
        """Return the tracks for this kind of event and moment."""
        raw, settled, allocated = (
            TrackKey(quantity, kind, after)
            for quantity in (
                Quantity.KV_COMMITTED_LEN,
                Quantity.KV_COMMITTED_LEN_SETTLED,
                Quantity.KV_ALLOCATED_LEN,
            )
        )
        track, has_slots = self._tracks.wanted_track, kind in (Kind.PREPARE, Kind.FINISH)
        return track(raw), track(settled), track(allocated) if has_slots else None

    def extend(self, ref: int) -> None:
        """Set the lengths of the extended requests from the recording, and the counters of new ones to 0."""
        table, rows = self._extends, self._extend_rows[ref]
        requests = self._state.requests
        reqs = [requests[qid] for qid in table.qid[rows.start : rows.stop]]
        for row, request in zip(rows, reqs, strict=True):
            request.registers_kv()
            request.kv_committed_len = table.seq_len[row]
            request.kv_allocated_len = table.allocated[row]
            self._state.holds_kv_again(request)
            request.is_retracted = False
            fresh = table.output_len[row] <= self._fresh
            if not request.seen and fresh:
                self._state.set_counters(request, 0)
            self._begins_anew(request)
            self._unsized.pop(request.qid, None)
        self._note(self._extended, rows, reqs)

    def seed(self, ref: int) -> None:
        """Begin requests that were running when the recording began.

        Their allocated length depends on the release and is unknown.
        """
        table = self._tape.rows_of[Kind.SEED]
        for row in self._tape.rows[Kind.SEED][ref]:
            if table.begins[row]:
                request = self._state.requests[table.qid[row]]
                request.registers_kv()
                request.kv_committed_len = table.seq_len[row]
                self._state.holds_kv_again(request)
                self._begins_anew(request)
                self._unsized[request.qid] = request

    def retract(self, ref: int) -> None:
        """Play a retract."""
        request = self._state.requests[self._retracts.qid[ref]]
        request.lets_kv_go()
        self._state.call(Role.RETRACT, request)
        self._begins_anew(request)
        self._note(self._retracted, range(ref, ref + 1), [request])

    def prepare(self, ref: int, batch: Batch) -> None:
        """Play a prepare and open its claims."""
        rows, reqs, table = self._prepare_rows[ref], batch.reqs, self._prepares
        before = self._note(self._preparing, rows, reqs)
        self._state.server_args.drafts(
            present(table.num_steps[ref]), present(table.num_draft_tokens[ref])
        )
        arguments = (batch.spec_info or self._state.draft_input(()), batch)
        role = self._state.prepare
        self._state.call(role, *arguments[0 if self._state.is_method(role) else 1 :])
        for request in self._unsized.values():
            request.kv_allocated_len = UNKNOWN_LEN
        for request in reqs:
            request.seen = True
        if self.claims is not None:
            self.claims.open(reqs, before, committed_lens(reqs))
        self._note(self._prepared, rows, reqs)

    def result(self, ref: int) -> None:
        """Play a decode result. The first token of an extend resolves nothing."""
        rows = self._result_rows[ref]
        if not rows or self._results.accept_len[rows.start] == NONE32:
            for row in rows:
                self._tail(row)
            return
        reqs = self._arrive(rows)
        before = self._say(rows, reqs)
        self._note(self._resolving, rows, reqs)
        batch = self._state.answered(reqs)
        batch.has_grammar = any(request.grammar is not None for request in reqs)
        self._state.call(Role.RESOLVE, self._state.scheduler, self._result(ref), batch)
        for request, (prompt, outputs) in zip(reqs, before, strict=True):
            request.origin_input_ids, request.output_ids = prompt, outputs
        self._close(rows, self._answers.launch[ref], reqs)

    def _tail(self, row: int) -> None:
        """Play a tail's result, if the row is one.

        The recording says whether the token ends the request.
        """
        if row not in self._tails_left:
            return
        self._tails_left.remove(row)
        (request,), finish = self._arrive(range(row, row + 1)), self._tails.finish.get(row, GOES_ON)

        def decide() -> None:
            request.finished_reason = ENDED if finish >= 0 else None

        self._note(self._resolving, range(row, row + 1), [request])
        batch = self._state.answered([request])
        batch.decoding_reqs = [request]
        self._state.call(Role.TAIL, self._state.scheduler, batch, request, decide)
        if finish == LOST:
            request.kv_committed_len = UNKNOWN_LEN
        self._close(range(row, row + 1), self._tails.launch[row], [request])

    def _close(self, rows: range, launch: int, reqs: Sequence[Request]) -> None:
        """Close the claims that a result answers and write its values."""
        if self.claims is not None:
            self.claims.close(launch, reqs)
        self._note(self._resolved, rows, reqs)
        for track, count in self._counts:
            _write(track, rows, list(map(count, reqs)))

    def _arrive(self, rows: range) -> list[Request]:
        """Return the requests in their state before this result.

        Decisions come from the recording, books do not.
        """
        table, requests, has_grammar = self._results, self._state.requests, self._has_grammar
        reqs = [requests[qid] for qid in table.qid[rows.start : rows.stop]]
        for row, request in zip(rows, reqs, strict=True):
            request.seen = True
            request.is_retracted = table.is_retracted[row] == 1
            request.finished_reason = ENDED if table.finished[row] == 1 else None
            request.grammar = self._grammar(row) if has_grammar[request.qid] else None
        return reqs

    def _say(self, rows: range, reqs: Sequence[Request]) -> list[tuple[Any, Any]]:
        """Set how many tokens the requests have before this result.

        Return the previous values, to be restored after it.
        """
        before = [(request.origin_input_ids, request.output_ids) for request in reqs]
        had, origin = self._results.output_len, self._tape.requests.origin_len
        for row, request in zip(rows, reqs, strict=True):
            request.origin_input_ids = range(origin[request.qid])
            request.output_ids = range(had[row])
        return before

    def _grammar(self, row: int) -> Grammar:
        # 0 if the grammar was not complete. Format 1 does not say; then the grammar is assumed to
        # be complete.
        done = self._results.grammar_done[row] != 0
        return Grammar(self._results.num_emitted[row], done=done)

    def _result(self, ref: int) -> GenerationBatchResult:
        """Return the stand-in of the result itself."""
        table, rows = self._answers, self._result_rows[ref]
        recorded, workers = present(table.stride[ref]), present(table.worker_stride[ref])
        accept = self._results.accept_len[rows.start : rows.stop]
        stride = recorded or workers or self._widths[ref] or max(accept)
        # Lengths depend only on the number of tokens, so tokens that were not captured can be
        # replaced by zeros.
        tokens = self._tokens[ref] or [0] * (stride * len(rows))
        self._state.scheduler.draft_worker.speculative_num_draft_tokens = workers or stride
        return GenerationBatchResult(tokens, accept, stride, present(table.num_non_draft[ref]))

    def _note(self, tracks: _LengthTracks, rows: range, reqs: Sequence[Request]) -> list[int]:
        """Write the lengths to their tracks and return the committed ones.

        This runs four times for every accepted run, so it handles whole batches.
        """
        committed, settled, allocated = tracks
        raw = committed_lens(reqs)
        if committed is not None:
            _write(committed, rows, raw)
        if settled is not None:
            _write(settled, rows, Claims.settled(reqs, raw))
        if allocated is not None:
            _write(allocated, rows, allocated_lens(reqs))
        return raw

    def finish(self, ref: int) -> None:
        """Write the values at a finish, then set the recorded decision."""
        request = self._state.requests[self._finishes.qid[ref]]
        if ref in self._tails.ended:
            self._tail(self._tails.ended[ref])
        self._note(self._finishing, range(ref, ref + 1), [request])
        if self._drafted is not None:
            verify_ct, steps = self._drafted(request)
            if known(verify_ct):
                drafts = sum(i * count for i, count in enumerate(steps))
                self._tracks.put_parts(_HISTOGRAM, ref, sum(steps), drafts)
        self._ends(ref, request)

    def _ends(self, ref: int, request: Request) -> None:
        """Set the recorded finish decision.

        The functions that collect rows and release KV use it.
        """
        table = self._finishes
        request.finished_reason = ENDED
        request.finished_len = present(table.finished_len[ref])
        request.origin_input_ids = range(table.origin_len[ref])
        request.output_ids = range(table.output_len[ref])
        request.reasoning_tokens = present(table.reasoning_tokens[ref]) or 0
        request.return_routed_experts = table.return_routed_experts[ref] == 1
        request.routed_experts_start_len = present(table.start_len[ref]) or 0

    @staticmethod
    def _begins_anew(request: Request) -> None:
        """Begin a new incarnation of the request: its claims are void."""
        request.incarnation += 1
        request.claims, request.prepared, request.seen = 0, None, True


def _write(track: array[int], rows: range, values: list[int]) -> None:
    """Write the values to a track. Values that depend on something unknown are left out."""
    assert len(rows) == len(values), "a batch changed while its lengths were noted"
    if min(values, default=0) > -LIMIT and max(values, default=0) < LIMIT:
        track[rows.start : rows.stop] = array("q", values)
        return
    for row, value in zip(rows, values, strict=True):
        if known(value):
            track[row] = value
