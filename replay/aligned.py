"""Which events of two recordings are the same event, seen by two ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..recorders.recording import Recording
from ..recorders.runs import is_late
from ..recorders.schema import ROW_TABLES, Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..recorders.schema import I64

# Clients are sent things by the first rank alone; where a recording begins anew is its recorder's own affair.
_NOT_SHARED = (Kind.SENT, Kind.WEIGHT_SPAN, Kind.GAP, Kind.SEED)


@dataclass(frozen=True, slots=True)
class Parting:
    """One place where the ranks differ. `event`: its place in the first recording's order; `rid`: None for a whole batch."""

    event: int
    step: int  # scheduler.forward_ct
    kind: Kind
    rid: str | None
    what: str  # a column of the format, "event", "rows" or "token"
    left: int | str | None
    right: int | str | None


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """Event `left[i]` of one recording is event `right[i]` of the other: of the same step and kind, with as many rows."""

    recordings: tuple[Recording, Recording]
    left: I64
    right: I64
    parting: Parting | None  # the first event, behind those, that is not the same
    num_left: int  # events that have no counterpart here
    num_right: int
    why: tuple[str, ...]  # they have none
    qids: I64  # by qid of the right, that of the left; below 0 where it has none

    @property
    def left_recording(self) -> Recording:
        return self.recordings[0]

    @property
    def events(self) -> tuple[I64, I64]:
        return self.left, self.right

    def as_left(self, qids: I64) -> I64:
        return self.qids[qids]

    def rid(self, qid: int) -> str:
        """Of a qid as the left has it, or as `as_left` gives it."""
        return self.recordings[0].rids[qid] if qid >= 0 else self.recordings[1].rids[-1 - qid]


def align(left: Recording, right: Recording) -> Aligned:
    """Both from the step that both saw whole, up to the first event that is not the same or the end of one of them."""
    pair = (left, right)
    shared = [np.flatnonzero(~np.isin(one.events.kind, _NOT_SHARED)) for one in pair]
    totals = [len(events) for events in shared]
    why = _late(pair, shared) + _across_gaps(pair, shared)
    parted = _parting(pair, shared)
    size = min(map(len, shared)) if parted is None else parted[0]
    if parted is None and len(shared[0]) != len(shared[1]):
        why.append("one recording goes on longer")
    if parted is not None and size < max(map(len, shared)):
        why.append("they lie behind the event that is not the same")
    return Aligned(
        recordings=pair,
        left=shared[0][:size],
        right=shared[1][:size],
        parting=None if parted is None else parted[1],
        num_left=totals[0] - size,
        num_right=totals[1] - size,
        why=tuple(why),
        qids=_same_requests(pair),
    )


def _steps(recording: Recording, events: I64) -> I64:
    return recording.events.iteration[events]


def _late(pair: tuple[Recording, Recording], shared: list[I64]) -> list[str]:
    """Unless both began with the server, narrow both to the steps behind the first one of the later."""
    if not all(map(len, shared)):
        return ["one recording is empty"] if any(map(len, shared)) else []
    first = [int(_steps(*one)[0]) for one in zip(pair, shared, strict=True)]
    if not any(map(is_late, pair)):
        return []
    for i, one in enumerate(pair):  # who is met in mid-life arrives when it is first seen
        steps, kinds = _steps(one, shared[i]), one.events.kind[shared[i]]
        shared[i] = shared[i][(steps > max(first)) & (kinds != Kind.ARRIVE)]
    return [
        f"recording began on a running server, of one rank or both: before step {max(first) + 1}, and arrivals"
    ]


def _across_gaps(pair: tuple[Recording, Recording], shared: list[I64]) -> list[str]:
    """Narrow both to the steps that no gap of either touches."""
    lost = [span for one in pair for span in _touched(one)]
    if not lost:
        return []
    begins, ends = np.sort(np.array(lost, dtype=np.int64), axis=0).T
    for i, one in enumerate(pair):
        steps = _steps(one, shared[i])
        begun, ended = np.searchsorted(begins, steps, "right"), np.searchsorted(ends, steps, "left")
        shared[i] = shared[i][begun == ended]  # as many have begun by then as have ended before
    return ["events were dropped in their steps"]


def _touched(recording: Recording) -> list[tuple[int, int]]:
    """From the step before each gap to the one behind it, or to the launch behind a seed: up to there results are left
    out. A gap at an end reaches as far as there are steps."""
    steps, most = recording.events.iteration, int(np.iinfo(np.int64).max)
    gaps, seeds, launches = (
        recording.event_of(kind) for kind in (Kind.GAP, Kind.SEED, Kind.LAUNCH)
    )

    def between(first: int, last: int) -> tuple[int, int]:
        begin = int(steps[first]) if first >= 0 else 0
        return begin, int(steps[last]) if last < len(steps) else most

    found = [between(at - 1, at + 1) for at in gaps.tolist()]
    # Behind each seed the next launch, and before it the last gap, if there is one and no seed since.
    launched = np.append(launches, len(steps))[np.searchsorted(launches, seeds, "right")]
    before = np.append(-1, gaps)[np.searchsorted(gaps, seeds)]
    since = np.append(-1, seeds)[:-1]
    first = np.where((before >= 0) & (since <= before), before, seeds)
    return found + [
        between(begin - 1, end)
        for begin, end in zip(first.tolist(), launched.tolist(), strict=True)
    ]


def _parting(pair: tuple[Recording, Recording], shared: list[I64]) -> tuple[int, Parting] | None:
    """The first place where step, kind or number of rows is not the same; an end is none."""
    size = min(map(len, shared))
    events = [one[:size] for one in shared]
    tables = [
        np.stack([_steps(one, at), one.events.kind[at], _num_rows(one)[at]])
        for one, at in zip(pair, events, strict=True)
    ]
    differs = np.flatnonzero((tables[0] != tables[1]).any(axis=0))
    if not len(differs):
        return None
    at = int(differs[0])
    (step, kind, rows), (other_step, other_kind, other_rows) = (
        table[:, at].tolist() for table in tables
    )
    same_event = (step, kind) == (other_step, other_kind)
    says = (f"{Kind(kind).words} at step {step}", f"{Kind(other_kind).words} at step {other_step}")
    return at, Parting(
        event=int(events[0][at]),
        step=step,
        kind=Kind(kind),
        rid=None,
        what="rows" if same_event else "event",
        left=rows if same_event else says[0],
        right=other_rows if same_event else says[1],
    )


def _num_rows(recording: Recording) -> I64:
    """By event; 0 for kinds without rows."""
    found = np.zeros(len(recording.events.kind), dtype=np.int64)
    for kind in ROW_TABLES:
        found[recording.event_of(kind)] = recording.event_table(kind).num_rows
    return found


def _same_requests(pair: tuple[Recording, Recording]) -> NDArray[np.int64]:
    """Requests are the same by their id, and by which one it is of those that have it."""
    left = {name: qid for qid, name in enumerate(_named(pair[0]))}
    right = enumerate(_named(pair[1]))
    return np.array([left.get(name, -1 - qid) for qid, name in right], dtype=np.int64)


def _named(recording: Recording) -> list[tuple[str, int]]:
    seen: dict[str, int] = {}
    named = []
    for rid in recording.rids:
        seen[rid] = seen.get(rid, -1) + 1
        named.append((rid, seen[rid]))
    return named
