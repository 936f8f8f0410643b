"""seq_lens_sum: the lifted filter, merge and refresh, on batches whose composition is the recording's."""

from __future__ import annotations

from collections.abc import Sequence

from ...recorders.schema import Kind, Mode
from ..quantity import Quantity
from .batch import Batch
from .missing import CannotRunError
from .request import Request
from .roles import Role
from .stage import Stage
from .standin import UNKNOWN_LEN
from .tape import Tape
from .tracks import Place, Tracks
from .vector import Vector


class Batches:
    """Every batch as this path sees it. One that was never seen whole has unknown lengths."""

    def __init__(self, stage: Stage, tape: Tape, tracks: Tracks) -> None:
        self._stage, self._tape, self._tracks = stage, tape, tracks
        self._held: dict[int, Batch] = {}
        self._accepted = tape.accepted()
        if not tape.recording.run.overlap:
            self._give_up("without the overlap schedule the sums are kept inside run_batch")

    def extend(self, ref: int) -> None:
        rows = self._tape.rows[Kind.EXTEND][ref]
        seq_lens = self._tape.rows_of[Kind.EXTEND].seq_len[rows.start : rows.stop]
        batch = self._tape.events[Kind.EXTEND].batch[ref]
        self._held[batch] = self._stage.batch(self._requests(Kind.EXTEND, ref), seq_lens)

    def prepare(self, ref: int) -> Batch:
        return self._whole(Kind.PREPARE, ref)

    def launch(self, ref: int) -> None:
        """The lengths are refreshed where this sglang does so; then every accepted run lengthens its request."""
        table = self._tape.events[Kind.LAUNCH]
        if table.mode[ref] not in (Mode.DECODE, Mode.EXTEND):
            self._held.pop(table.batch[ref], None)
        batch = self._whole(Kind.LAUNCH, ref)
        if self._stage.has(Role.SEQ_LENS):
            self._try(Role.SEQ_LENS, self._stage.future_map, batch)
        self._put(Kind.LAUNCH, ref, batch)
        lengths = batch.seq_lens
        if table.mode[ref] == Mode.DECODE:
            launch = table.launch[ref]
            lengths = Vector(
                length + self._accepted.get((launch, req.qid), UNKNOWN_LEN)
                for length, req in zip(batch.seq_lens, batch.reqs, strict=True)
            )
        if self._stage.has(Role.SEQ_LENS):
            published = zip((req.qid for req in batch.reqs), lengths.values, strict=True)
            self._stage.future_map.new_seq_lens_buf.published.update(published)
        else:  # up to 0.5.12 the launch leaves the lengths of the step to come
            batch.seq_lens = lengths
        batch.spec_info = self._stage.draft_input([req.qid for req in batch.reqs])
        batch.spec_info.new_seq_lens = lengths

    def filter(self, ref: int) -> None:
        """Who is left is the recording's word; what becomes of the sum is the lifted function's."""
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
        table, together = self._tape.events[Kind.MERGE], self._tape.qids(Kind.MERGE, ref)
        other = self._held.get(table.other[ref])
        if other is None:
            other = self._unknown((), 0)
        mine = self._held.get(table.batch[ref])
        if mine is None:
            mine = self._unknown(together[: len(together) - len(other.reqs)], 0)
        self._held[table.batch[ref]] = mine
        self._try(Role.MERGE, mine, other)
        self._settle(Kind.MERGE, ref)

    def forget(self) -> None:
        self._held.clear()

    def _settle(self, kind: Kind, ref: int) -> None:
        """Keep the batch where it holds who the recording says; else start it anew, unknown."""
        self._put(kind, ref, self._whole(kind, ref))

    def _whole(self, kind: Kind, ref: int) -> Batch:
        key, qids = self._tape.events[kind].batch[ref], self._tape.qids(kind, ref)
        batch = self._held.get(key)
        if batch is None or [request.qid for request in batch.reqs] != qids:
            batch = self._held[key] = self._unknown(qids, len(qids))
        return batch

    def _unknown(self, qids: Sequence[int], size: int) -> Batch:
        """A batch seen for the first time after its extend; strangers fill it up to its size."""
        reqs = [self._stage.requests[qid] for qid in qids]
        reqs += [self._stage.stranger()] * (size - len(reqs))
        batch = self._stage.batch(reqs, [UNKNOWN_LEN] * len(reqs))
        batch.seq_lens_sum = UNKNOWN_LEN
        batch.spec_info = self._stage.draft_input([request.qid for request in reqs])
        batch.spec_info.new_seq_lens = batch.seq_lens  # what a prepare of DFLASH goes by
        return batch

    def _requests(self, kind: Kind, ref: int) -> list[Request]:
        return [self._stage.requests[qid] for qid in self._tape.qids(kind, ref)]

    def _try(self, role: Role, *arguments: object, **named: object) -> None:
        if Quantity.SEQ_LENS_SUM in self._tracks.reasons:
            return
        try:
            self._stage.call(role, *arguments, **named)
        except CannotRunError as error:
            self._give_up(str(error))

    def _give_up(self, reason: str) -> None:
        """The sums alone cannot be computed: the other quantities still can."""
        self._tracks.reasons[Quantity.SEQ_LENS_SUM] = reason
        for kind in (Kind.FILTER, Kind.MERGE, Kind.LAUNCH):
            self._tracks.values.pop(Place(Quantity.SEQ_LENS_SUM, kind, True), None)

    def _put(self, kind: Kind, ref: int, batch: Batch) -> None:
        if Quantity.SEQ_LENS_SUM not in self._tracks.reasons:
            self._tracks.put(Place(Quantity.SEQ_LENS_SUM, kind, True), ref, batch.seq_lens_sum)
