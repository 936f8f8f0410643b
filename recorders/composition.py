"""Find out which requests were in a batch before a filter or merge.

A FILTER or MERGE event lists the requests in the batch after it; those before it follow from the
batch's earlier events.
"""

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
    """The requests in the batch before each event of one kind.

    Request `qid[i]` was in the batch before event row `owner[i]`. Event rows whose `known` is
    False have no entries: their members are unknown.
    """

    owner: I64
    qid: I64
    known: NDArray[np.bool_]  # one entry per row of the event table

    def count(self, mask: NDArray[np.bool_]) -> I64:
        """Return, per event, how many requests of `mask` (by qid) were in its batch; 0 if unknown."""
        owner = self.owner[mask[self.qid]]
        return np.bincount(owner, minlength=len(self.known)).astype(np.int64)


def members_before(recording: Recording) -> dict[Kind, Members]:
    """Return the members before every filter and every merge.

    They are unknown if the batch has not appeared since the last gap, or (for a filter) if their
    number differs from the recorded size.
    """
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
    """Return the qids of every event of a kind.

    The arrays are views, not copies: a long recording has hundreds of millions of rows.
    """
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
