"""Replay batches and their seq_lens_sum: the lifted filter, merge and refresh, with the recorded members."""

from __future__ import annotations

from collections.abc import Sequence

from ...recorders.schema import Kind, Mode
from ..quantity import Quantity
from .missing import CannotRunError
from .replay_state import ReplayState
from .roles import Role
from .standins.base import UNKNOWN_LEN
from .standins.batch import Batch
from .standins.request import Request
from .standins.vector import Vector
from .tape import Tape, accepted, present
from .tracks import TrackKey, Tracks


class BatchReplay:
    """Holds every batch as this path sees it.

    A batch that was never seen completely has unknown lengths.
    """

    def __init__(self, state: ReplayState, tape: Tape, tracks: Tracks) -> None:
        self._state, self._tape, self._tracks = state, tape, tracks
        self._held: dict[int, Batch] = {}
        self._overlap = tape.recording.run.overlap
        if state.program.surface.no_sums:
            self._give_up(state.program.surface.no_sums)
        elif not self._overlap and not state.has(Role.SEQ_LENS):
            self._give_up(f"{state.program.name} runs no spec v2 without the overlap schedule")

    def extend(self, ref: int) -> None:
        """Begin the batch of an extend, with the recorded lengths."""
        rows = self._tape.rows[Kind.EXTEND][ref]
        table, of = self._tape.rows_of[Kind.EXTEND], slice(rows.start, rows.stop)
        batch = self._state.batch(self._requests(Kind.EXTEND, ref), table.seq_len[of])
        batch.prefix_lens, batch.extend_lens = table.prefix_len[of], table.extend_len[of]
        batch.extend_num_tokens = sum(batch.extend_lens)
        self._held[self._tape.events[Kind.EXTEND].batch[ref]] = batch
        if (
            self._tape.recording.run.decode_side
        ):  # no launch follows; another server ran the prefill
            self._relay(batch, batch.seq_lens)

    def seed(self, ref: int) -> None:
        """Begin a batch that was running when the recording began."""
        table, rows = self._tape.rows_of[Kind.SEED], self._tape.rows[Kind.SEED][ref]
        lengths = [present(length) for length in table.seq_len[rows.start : rows.stop]]
        batch = self._state.batch(
            self._requests(Kind.SEED, ref),
            [UNKNOWN_LEN if length is None else length for length in lengths],
        )
        self._held[self._tape.events[Kind.SEED].batch[ref]] = batch
        self._relay(batch, batch.seq_lens)

    def prepare(self, ref: int) -> Batch:
        return self._whole(Kind.PREPARE, ref)

    def members(self, ref: int) -> Batch:
        """Return a prepare's batch with unknown lengths, for a replay that does not compute sums."""
        qids = self._tape.qids(Kind.PREPARE, ref)
        return self._unknown(qids, len(qids))

    def launch(self, ref: int) -> None:
        """Refresh the lengths if this sglang does so here, then lengthen each request by its accepted run."""
        table = self._tape.events[Kind.LAUNCH]
        if table.mode[ref] == Mode.IDLE:  # created for this launch, without requests
            self._held[table.batch[ref]] = self._state.batch([], [])
        elif table.mode[ref] not in (Mode.DECODE, Mode.EXTEND, Mode.MIXED):
            self._held.pop(table.batch[ref], None)
        batch = self._whole(Kind.LAUNCH, ref)
        if not self._overlap:
            self._run_alone(ref, batch)
            return
        refreshed = self._state.has(Role.SEQ_LENS)
        if refreshed:
            self._try(Role.SEQ_LENS, self._state.future_map, batch)
        if batch.mix_running_indices is not None:
            self._try(Role.TAIL_LENS, self._state.future_map, batch)
            batch.mix_running_indices = None
        self._put(Kind.LAUNCH, ref, batch)
        self._relay(batch, self._grown(ref, batch))

    def _relay(self, batch: Batch, lengths: Vector) -> None:
        """Publish what a forward leaves for the next step."""
        if self._state.has(Role.SEQ_LENS):
            published = zip((req.qid for req in batch.reqs), lengths.values, strict=True)
            self._state.future_map.new_seq_lens_buf.published.update(published)
        else:  # up to 0.5.12 the launch itself sets the lengths for the next step
            batch.seq_lens = lengths
        self._carry(batch, lengths)

    def _run_alone(self, ref: int, batch: Batch) -> None:
        """Play a launch without overlap, from 0.5.13 on: `run_batch` has the result at once and stores the new lengths."""
        lengths = self._grown(ref, batch)
        batch.seq_lens = batch.seq_lens_cpu = lengths
        batch.seq_lens_sum = sum(lengths)
        self._put(Kind.LAUNCH, ref, batch)
        self._carry(batch, lengths)

    def _grown(self, ref: int, batch: Batch) -> Vector:
        """Return the lengths after this launch, from what its result accepted."""
        table = self._tape.events[Kind.LAUNCH]
        if table.mode[ref] != Mode.DECODE:
            return batch.seq_lens
        launch, grows_by = table.launch[ref], self._tape.once(accepted)
        return Vector(
            length + grows_by.get((launch, req.qid), UNKNOWN_LEN)
            for length, req in zip(batch.seq_lens, batch.reqs, strict=True)
        )

    def _carry(self, batch: Batch, lengths: Vector) -> None:
        batch.spec_info = self._state.draft_input([req.qid for req in batch.reqs])
        batch.spec_info.new_seq_lens = lengths

    def filter(self, ref: int) -> None:
        """Play a filter.

        The recording says which requests remain, the lifted function computes the sum.
        """
        table, left = self._tape.events[Kind.FILTER], self._tape.qids(Kind.FILTER, ref)
        batch = self._held.get(table.batch[ref])
        if batch is None or len(batch.reqs) != table.size_before[ref]:
            batch = self._unknown(left, table.size_before[ref])
        places = {request.qid: place for place, request in enumerate(batch.reqs)}
        keep = [places[qid] for qid in left if qid in places]
        self._held[table.batch[ref]] = batch
        self._try(Role.FILTER, batch, keep_indices=keep)
        self._settle(Kind.FILTER, ref)

    def merge(self, ref: int) -> None:
        """Play a merge, or the mixing of a running batch into an extend."""
        table, together = self._tape.events[Kind.MERGE], self._tape.qids(Kind.MERGE, ref)
        other = self._held.get(table.other[ref])
        if other is None:
            other = self._unknown((), 0)
        mine = self._held.get(table.batch[ref])
        if mine is None:
            mine = self._unknown(together[: len(together) - len(other.reqs)], 0)
        self._held[table.batch[ref]] = mine
        if ref in self._tape.once(_mixes):
            self._mix(mine, other)
        else:
            self._try(Role.MERGE, mine, other)
        self._settle(Kind.MERGE, ref)

    def _mix(self, batch: Batch, running: Batch) -> None:
        """Merge a running batch into an extend.

        Lengths do not include outputs still to come; the launch sets them.
        """
        had = [(req, req.origin_input_ids, req.output_ids) for req in running.reqs]
        for request, *_ in had:
            request.origin_input_ids = request.output_ids = range(UNKNOWN_LEN)
        self._try(Role.MIX, batch, running)
        for request, prompt, outputs in had:
            request.origin_input_ids, request.output_ids = prompt, outputs

    def forget(self) -> None:
        self._held.clear()

    def _settle(self, kind: Kind, ref: int) -> None:
        """Keep the batch if it has the recorded members, otherwise replace it with one of unknown lengths."""
        self._put(kind, ref, self._whole(kind, ref))

    def _whole(self, kind: Kind, ref: int) -> Batch:
        """Return the batch of an event; if its members are not the recorded ones, a new one of unknown lengths."""
        key, qids = self._tape.events[kind].batch[ref], self._tape.qids(kind, ref)
        batch = self._held.get(key)
        if batch is None or [request.qid for request in batch.reqs] != qids:
            batch = self._held[key] = self._unknown(qids, len(qids))
        return batch

    def _unknown(self, qids: Sequence[int], size: int) -> Batch:
        """Return a batch with unknown lengths, filled up to its size with unknown requests."""
        reqs = [self._state.requests[qid] for qid in qids]
        if size > len(reqs):
            reqs += [self._state.unknown_request()] * (size - len(reqs))
        batch = self._state.batch(reqs, [UNKNOWN_LEN] * len(reqs))
        batch.seq_lens_sum = UNKNOWN_LEN
        batch.spec_info = self._state.draft_input([request.qid for request in reqs])
        batch.spec_info.new_seq_lens = batch.seq_lens  # read by a prepare of DFLASH
        return batch

    def _requests(self, kind: Kind, ref: int) -> list[Request]:
        return [self._state.requests[qid] for qid in self._tape.qids(kind, ref)]

    def _try(self, role: Role, *arguments: object, **named: object) -> None:
        """Call a role. If it cannot run, drop the sums."""
        if Quantity.SEQ_LENS_SUM in self._tracks.reasons:
            return
        try:
            self._state.call(role, *arguments, **named)
        except CannotRunError as error:
            self._give_up(str(error))

    def _give_up(self, reason: str) -> None:
        """Drop the sums, which cannot be computed. The other quantities are not affected."""
        self._tracks.reasons[Quantity.SEQ_LENS_SUM] = reason
        for kind in (Kind.FILTER, Kind.MERGE, Kind.LAUNCH):
            self._tracks.values.pop(TrackKey(Quantity.SEQ_LENS_SUM, kind, True), None)

    def _put(self, kind: Kind, ref: int, batch: Batch) -> None:
        if Quantity.SEQ_LENS_SUM not in self._tracks.reasons:
            self._tracks.put(TrackKey(Quantity.SEQ_LENS_SUM, kind, True), ref, batch.seq_lens_sum)


def _mixes(tape: Tape) -> set[int]:
    """Return the merges in which a running batch joined an extend: the next launch of that batch is the mixed one."""
    found, last = set(), {}
    merges, launches = tape.events[Kind.MERGE], tape.events[Kind.LAUNCH]
    for kind, ref in tape:
        if kind is Kind.MERGE:
            last[merges.batch[ref]] = ref
        elif kind is Kind.LAUNCH:
            merge = last.pop(launches.batch[ref], None)
            if merge is not None and launches.mode[ref] == Mode.MIXED:
                found.add(merge)
    return found
