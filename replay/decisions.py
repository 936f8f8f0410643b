"""Where the server decides whether a request is finished, and what it decided: one decision per live result row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
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


@lru_cache(maxsize=1)  # each path over a recording asks anew
def decisions(recording: Recording) -> Decisions:
    """A request finishes at its last live result, if it does: later ones are stale.

    A prefill side decides nothing at a result: it ends every request once its KV has been sent.
    """
    rows = recording.result_rows
    chunks = chunks_of(recording)
    unsure = chunks.unsure
    live = (rows.finished == 0) & (rows.is_retracted == 0) & ~chunks.inside
    live &= not recording.run.prefill_side
    row = np.flatnonzero(live)
    qid, event = rows.qid[row].astype(np.int64), _event_of_rows(recording)[row]
    last = np.full(len(recording.rids), -1, dtype=np.int64)
    last[qid] = np.arange(len(row))  # of several assignments numpy keeps the last
    finish = np.full(len(row), GOES_ON, dtype=np.int64)
    # An extend result is written when it has been processed: its finish stands between launch and result.
    begins = np.where(rows.accept_len[row] == NONE32, launch_events(recording)[row], event)
    at = last[last >= 0]
    num_gaps = len(recording.gaps.dropped)
    whole = _whole(recording) & (_gaps_before(recording, begins[at]) == num_gaps)
    finish[at[~whole]] = LOST  # unless its finish is there, next
    ends = last[recording.finishes.qid]
    seen, finished = np.flatnonzero(ends >= 0), recording.event_of(Kind.FINISH)
    ends, finished = ends[seen], finished[seen]
    inside = (begins[ends] < finished) & (finished < event[ends])
    breaks = recording.breaks
    behind = np.searchsorted(breaks, event[ends]) == np.searchsorted(breaks, finished)
    # Where the recording, or what a gap has left of it, ends between the finish and the result of an extend, that
    # result is not here, and the one before it did not end its request: there are more outputs than it has made.
    # Nor did a result that may be of a chunk: what it would have made is another's.
    its = _outputs_behind(recording, row[ends]) == recording.finishes.output_len[seen]
    behind &= ~unsure[row[ends]]
    finish[ends] = np.where((inside | behind) & its, seen, LOST)
    finish[unsure[row] & (finish == GOES_ON)] = LOST
    return Decisions(row, finish)


def _whole(recording: Recording) -> bool:
    """Recorded to the end of the process: nothing can be missing behind the last event."""
    return bool(recording.stats and recording.stats.closed and not recording.damage)


def _outputs_behind(recording: Recording, row: I64) -> I64:
    """How many outputs the requests of these result rows have once they are processed; an extend makes one each."""
    rows = recording.result_rows
    emitted = np.where(rows.num_emitted[row] == NONE32, 1, rows.num_emitted[row])
    return rows.output_len[row].astype(np.int64) + emitted


def _gaps_before(recording: Recording, event: I64) -> I64:
    return np.searchsorted(recording.event_of(Kind.GAP), event)


def _event_of_rows(recording: Recording) -> I64:
    return recording.event_of(Kind.RESULT)[recording.owner(Kind.RESULT)]


@dataclass(frozen=True, slots=True, eq=False)
class Chunks:
    """Which of `result_rows` (bool) are of a chunk that the prompt goes on behind: its token is thrown away, nothing is
    decided. `unsure`: that is not known, since a gap has their extend or their launch."""

    inside: NDArray[np.bool_]
    unsure: NDArray[np.bool_]


@lru_cache(maxsize=1)  # each event of a life asks anew
def chunks_of(recording: Recording) -> Chunks:
    rows, extends = recording.result_rows, recording.extend_rows
    inside = np.zeros(len(rows.qid), dtype=bool)
    unsure = inside.copy()
    gaps = len(recording.gaps.dropped)
    if not gaps and not (extends.chunked == 1).any():
        return Chunks(inside, unsure)
    size = len(recording.events.kind) + 1
    extended = recording.event_of(Kind.EXTEND)[recording.owner(Kind.EXTEND)]
    key = extends.qid.astype(np.int64) * size + extended
    order = np.argsort(key)
    mine = np.flatnonzero(rows.accept_len == NONE32)  # of an extend
    launched = launch_events(recording)[mine]
    begins = np.where(launched < 0, _event_of_rows(recording)[mine], launched)
    wanted = rows.qid[mine].astype(np.int64) * size + begins
    at = np.searchsorted(key[order], wanted) - 1
    found = order[at.clip(0)] if len(order) else np.zeros(len(mine), dtype=np.int64)
    there = at >= 0
    there[there] = extends.qid[found[there]] == rows.qid[mine[there]]
    there[there] = _gaps_before(recording, extended[found[there]]) == _gaps_before(
        recording, begins[there]
    )
    inside[mine[there]] = extends.chunked[found[there]] == 1
    unsure[mine] = (gaps > 0) & (~there | (launched < 0))
    return Chunks(inside, unsure)


def launch_events(recording: Recording) -> I64:
    """Per result row, the event of the launch it answers; where that is not known, -1: before everything."""
    answered = recording.results.launch[recording.owner(Kind.RESULT)]
    if not len(recording.launches.launch):
        return np.full(len(answered), -1)
    place = np.searchsorted(recording.launches.launch, answered).clip(
        0, len(recording.launches.launch) - 1
    )
    launched = recording.event_of(Kind.LAUNCH)[place]
    return np.where(answered == NONE64, -1, launched)
