"""Pair up the events of two ranks' recordings: which event of one is which event of the other."""

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

# Only the first rank sends to clients, and gaps and seeds are specific to each recorder.
_NOT_SHARED = (Kind.SENT, Kind.WEIGHT_SPAN, Kind.GAP, Kind.SEED)


@dataclass(frozen=True, slots=True)
class RankDifference:
    """One place where two ranks differ.

    `event` is the event's index in the first recording. `rid` is None if the difference concerns a
    whole batch.
    """

    event: int
    step: int  # scheduler.forward_ct
    kind: Kind
    rid: str | None
    what: str  # a column of the format, "event", "rows" or "token"
    left: int | str | None
    right: int | str | None


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """Two recordings with their events paired: `left[i]` of one is `right[i]` of the other.

    Paired events have the same step, kind and number of rows.
    """

    recordings: tuple[Recording, Recording]
    left: I64
    right: I64
    first_difference: (
        RankDifference | None
    )  # the first event after the paired ones, where the recordings differ
    num_left: int  # events of the left recording without a counterpart
    num_right: int
    why: tuple[str, ...]  # the reasons why those events have no counterpart
    qids: I64  # the left qid for each right qid; below 0 if the left has none

    @property
    def left_recording(self) -> Recording:
        return self.recordings[0]

    @property
    def events(self) -> tuple[I64, I64]:
        return self.left, self.right

    def as_left(self, qids: I64) -> I64:
        return self.qids[qids]

    def rid(self, qid: int) -> str:
        """Return the request id for a qid of the left recording, or for a value returned by `as_left`."""
        return self.recordings[0].rids[qid] if qid >= 0 else self.recordings[1].rids[-1 - qid]


def align(left: Recording, right: Recording) -> Aligned:
    """Pair the events from the first step that both saw completely.

    The pairing ends at the first event that differs or where one recording ends.
    """
    pair = (left, right)
    shared = [np.flatnonzero(~np.isin(one.events.kind, _NOT_SHARED)) for one in pair]
    totals = [len(events) for events in shared]
    why = _late(pair, shared) + _across_gaps(pair, shared)
    difference = _first_difference(pair, shared)
    size = min(map(len, shared)) if difference is None else difference[0]
    if difference is None and len(shared[0]) != len(shared[1]):
        why.append("one recording continues after the other ends")
    if difference is not None and size < max(map(len, shared)):
        why.append("they come after the first event that differs")
    return Aligned(
        recordings=pair,
        left=shared[0][:size],
        right=shared[1][:size],
        first_difference=None if difference is None else difference[1],
        num_left=totals[0] - size,
        num_right=totals[1] - size,
        why=tuple(why),
        qids=_same_requests(pair),
    )


def _steps(recording: Recording, events: I64) -> I64:
    return recording.events.iteration[events]


def _late(pair: tuple[Recording, Recording], shared: list[I64]) -> list[str]:
    """If either recording began on a running server, keep only the steps after the later one's first step."""
    if not all(map(len, shared)):
        return ["one recording is empty"] if any(map(len, shared)) else []
    first = [int(_steps(*one)[0]) for one in zip(pair, shared, strict=True)]
    if not any(map(is_late, pair)):
        return []
    of_left = _same_requests(pair)
    unmatched = (np.setdiff1d(np.arange(len(pair[0].rids)), of_left), np.flatnonzero(of_left < 0))
    for i, one in enumerate(pair):  # a request already running gets its arrival when first seen
        steps, kinds = _steps(one, shared[i]), one.events.kind[shared[i]]
        known = ~np.isin(shared[i], _events_of(one, unmatched[i]))
        shared[i] = shared[i][(steps > max(first)) & (kinds != Kind.ARRIVE) & known]
    return [
        (
            "at least one of the recordings began on a running server: events before "
            f"step {max(first) + 1}, arrivals, and what happens to a request that one side never saw "
            "running, have no counterpart"
        )
    ]


def _events_of(recording: Recording, qids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the events that are about one request, if that is one of these."""
    found = [np.empty(0, dtype=np.int64)]
    for kind in Kind:
        qid = getattr(recording.event_table(kind), "qid", None)
        if qid is not None:
            found.append(recording.event_of(kind)[np.isin(qid, qids)])
    return np.concatenate(found)


def _across_gaps(pair: tuple[Recording, Recording], shared: list[I64]) -> list[str]:
    """Keep only the steps that no gap in either recording touches."""
    lost = [span for one in pair for span in _touched(one)]
    if not lost:
        return []
    begins, ends = np.sort(np.array(lost, dtype=np.int64), axis=0).T
    for i, one in enumerate(pair):
        steps = _steps(one, shared[i])
        begun, ended = np.searchsorted(begins, steps, "right"), np.searchsorted(ends, steps, "left")
        # A step is outside every span if all spans that began by then have also ended.
        shared[i] = shared[i][begun == ended]
    return ["events were dropped in their steps"]


def _touched(recording: Recording) -> list[tuple[int, int]]:
    """Return the spans of steps that each gap makes incomparable.

    A span runs from the step before a gap to the step after it. If a seed follows, the span runs to
    the launch after the seed, because results are left out until then. A gap at either end of the
    recording extends to that end of the steps.
    """
    steps, most = recording.events.iteration, int(np.iinfo(np.int64).max)
    gaps, seeds, launches = (
        recording.event_of(kind) for kind in (Kind.GAP, Kind.SEED, Kind.LAUNCH)
    )

    def between(first: int, last: int) -> tuple[int, int]:
        begin = int(steps[first]) if first >= 0 else 0
        return begin, int(steps[last]) if last < len(steps) else most

    found = [between(at - 1, at + 1) for at in gaps.tolist()]
    # The next launch after each seed, and the last gap before it unless another seed came in
    # between.
    launched = np.append(launches, len(steps))[np.searchsorted(launches, seeds, "right")]
    before = np.append(-1, gaps)[np.searchsorted(gaps, seeds)]
    since = np.append(-1, seeds)[:-1]
    first = np.where((before >= 0) & (since <= before), before, seeds)
    return found + [
        between(begin - 1, end)
        for begin, end in zip(first.tolist(), launched.tolist(), strict=True)
    ]


def _first_difference(
    pair: tuple[Recording, Recording], shared: list[I64]
) -> tuple[int, RankDifference] | None:
    """Return the first place where step, kind or row count differs.

    The end of a recording is not a difference.
    """
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
    return at, RankDifference(
        event=int(events[0][at]),
        step=step,
        kind=Kind(kind),
        rid=None,
        what="rows" if same_event else "event",
        left=rows if same_event else says[0],
        right=other_rows if same_event else says[1],
    )


def _num_rows(recording: Recording) -> I64:
    """Return the number of rows of each event; 0 for kinds without rows."""
    found = np.zeros(len(recording.events.kind), dtype=np.int64)
    for kind in ROW_TABLES:
        found[recording.event_of(kind)] = recording.event_table(kind).num_rows
    return found


def _same_requests(pair: tuple[Recording, Recording]) -> NDArray[np.int64]:
    """Match requests by id and, because ids can be reused, by how many requests had that id before."""
    left = {name: qid for qid, name in enumerate(_named(pair[0]))}
    right = enumerate(_named(pair[1]))
    return np.array([left.get(name, -1 - qid) for qid, name in right], dtype=np.int64)


def _named(recording: Recording) -> list[tuple[str, int]]:
    """Return each request as (id, how many earlier requests had the same id)."""
    seen: dict[str, int] = {}
    named = []
    for rid in recording.rids:
        seen[rid] = seen.get(rid, -1) + 1
        named.append((rid, seen[rid]))
    return named
