"""Who was in a batch when it was filtered or merged: the recording says who was left, and before it who had been there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .recording import Recording, row_starts
from .schema import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .schema import I32, I64

_KINDS = (
    Kind.EXTEND,
    Kind.SEED,
    Kind.PREPARE,
    Kind.LAUNCH,
    Kind.FILTER,
    Kind.MERGE,
    Kind.GAP,
)


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """Of one kind of event: `qid[i]` was in the batch of event row `owner[i]` when that began, where `known[owner[i]]`."""

    owner: I64
    qid: I64
    known: NDArray[np.bool_]  # one entry per row of the event table

    def count(self, mask: NDArray[np.bool_]) -> I64:
        """Per event: how many of the requests of `mask` (by qid) were in its batch; 0 where that is not known."""
        owner = self.owner[mask[self.qid]]
        return np.bincount(owner, minlength=len(self.known)).astype(np.int64)


def members_before(recording: Recording) -> dict[Kind, Members]:
    """Of every filter and merge. Not known: the batch was not seen since a gap, or not of the size that was recorded."""
    held: dict[int, I32] = {}
    found: dict[Kind, list[I32 | None]] = {Kind.FILTER: [], Kind.MERGE: []}
    rows = {kind: _rows(recording, kind) for kind in _KINDS[:-1]}
    batches = {kind: recording.event_table(kind).batch.tolist() for kind in _KINDS[:-1]}
    others, sizes = recording.merges.other.tolist(), recording.filters.size_before.tolist()
    kinds, refs = map(Kind, recording.events.kind.tolist()), recording.events.ref.tolist()
    for kind, ref in zip(kinds, refs, strict=True):
        if kind not in _KINDS:
            continue
        if kind is Kind.GAP:
            held.clear()
            continue
        batch = batches[kind][ref]
        before = held.get(batch)
        if kind is Kind.FILTER:
            found[kind].append(before if before is not None and len(before) == sizes[ref] else None)
        elif kind is Kind.MERGE:
            found[kind].append(before)
            held.pop(others[ref], None)
        held[batch] = rows[kind][ref]
    return {kind: _members(lists) for kind, lists in found.items()}


def _rows(recording: Recording, kind: Kind) -> list[I32]:
    """The requests of every event of a kind: parts of its column, of which a long recording has hundreds of millions."""
    qid, counts = recording.row_table(kind).qid, recording.event_table(kind).num_rows
    starts = row_starts(counts).tolist()
    return [qid[start : start + n] for start, n in zip(starts, counts.tolist(), strict=True)]


def _members(parts: list[I32 | None]) -> Members:
    there = [qids for qids in parts if qids is not None]
    counts = [0 if qids is None else len(qids) for qids in parts]
    return Members(
        np.repeat(np.arange(len(parts)), counts),
        np.concatenate([np.zeros(0, dtype=np.int32), *there]).astype(np.int64),
        np.array([qids is not None for qids in parts], dtype=bool),
    )
