"""Where the server decides whether a request is finished, and what it decided: one decision per live result row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..recorders.recording import Recording
from ..recorders.schema import NONE32, NONE64, Kind

if TYPE_CHECKING:
    from ..recorders.schema import I64

GOES_ON, LOST = -1, -2  # instead of a row of `finishes`


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """One entry per decision, in event order.

    `row`: of `result_rows`; `finish`: of `finishes`, `GOES_ON`, or `LOST` where events are missing that could tell.
    """

    row: I64
    finish: I64


def decisions(recording: Recording) -> Decisions:
    """A request finishes at its last live result, if it does: later ones are stale."""
    rows = recording.result_rows
    live = (rows.finished == 0) & (rows.is_retracted == 0) & ~_inside_prompt(recording)
    row = np.flatnonzero(live)
    qid, event = rows.qid[row].astype(np.int64), _event_of_rows(recording)[row]
    epoch = _gaps_before(recording, event)
    last = np.full(len(recording.rids), -1, dtype=np.int64)
    last[qid] = np.arange(len(row))  # of several assignments numpy keeps the last
    finish = np.full(len(row), GOES_ON, dtype=np.int64)
    at = last[last >= 0]
    lost = epoch[at] < len(recording.gaps.dropped) if _whole(recording) else np.ones(len(at), bool)
    finish[at[lost]] = LOST  # unless its finish is there, next
    ends = last[recording.finishes.qid]
    seen = np.flatnonzero(ends >= 0)
    same = epoch[ends[seen]] == _gaps_before(recording, recording.event_of(Kind.FINISH)[seen])
    finish[ends[seen]] = np.where(same, seen, LOST)
    return Decisions(row, finish)


def _whole(recording: Recording) -> bool:
    """Recorded to the end of the process: nothing can be missing behind the last event."""
    return bool(recording.stats and recording.stats.closed and not recording.damage)


def _gaps_before(recording: Recording, event: I64) -> I64:
    return np.searchsorted(recording.event_of(Kind.GAP), event)


def _event_of_rows(recording: Recording) -> I64:
    return recording.event_of(Kind.RESULT)[recording.owner(Kind.RESULT)]


def _inside_prompt(recording: Recording) -> NDArray[np.bool_]:
    """Result rows (bool) of a chunk that the prompt goes on behind: its token is thrown away, nothing is decided."""
    rows, extends = recording.result_rows, recording.extend_rows
    inside = np.zeros(len(rows.qid), dtype=bool)
    if not (extends.chunked == 1).any():
        return inside
    size = len(recording.events.kind) + 1
    key = extends.qid * size + recording.event_of(Kind.EXTEND)[recording.owner(Kind.EXTEND)]
    order = np.argsort(key)
    mine = np.flatnonzero(rows.accept_len == NONE32)  # of an extend
    wanted = rows.qid[mine] * size + _launch_events(recording)[mine]
    at = np.searchsorted(key[order], wanted) - 1
    there = (at >= 0) & (extends.qid[order[at.clip(0)]] == rows.qid[mine])
    inside[mine[there]] = extends.chunked[order[at[there]]] == 1
    return inside


def _launch_events(recording: Recording) -> I64:
    """Per result row, the event of the launch it answers; where that is not known, of the result itself."""
    answered = recording.results.launch[recording.owner(Kind.RESULT)]
    if not len(recording.launches.launch):
        return _event_of_rows(recording)
    place = np.searchsorted(recording.launches.launch, answered).clip(
        0, len(recording.launches.launch) - 1
    )
    launched = recording.event_of(Kind.LAUNCH)[place]
    return np.where(answered == NONE64, _event_of_rows(recording), launched)
