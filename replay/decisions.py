"""Where the server decides whether a request is finished, and what it decides: one decision per live result row."""

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

GOES_ON, LOST = -1, -2  # take the place of a row number in `finishes`


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """One entry per decision, in event order.

    `row` is a row of `result_rows`. `finish` is a row of `finishes`, or `GOES_ON`, or `LOST` if the
    events that could tell are missing.
    """

    row: I64
    finish: I64


@lru_cache(maxsize=1)  # every path over a recording needs it again
def decisions(recording: Recording) -> Decisions:
    """Find the finish decisions.

    A request finishes at its last live result, if at all; later results are stale.

    The prefill side of a disaggregated server decides nothing at a result: it ends each request
    once its KV is sent.
    """
    rows = recording.result_rows
    chunks = chunks_of(recording)
    unsure = chunks.unsure
    live = (rows.finished == 0) & (rows.is_retracted == 0) & ~chunks.inside
    live &= not recording.run.prefill_side
    row = np.flatnonzero(live)
    qid, event = rows.qid[row].astype(np.int64), _event_of_rows(recording)[row]
    last = np.full(len(recording.rids), -1, dtype=np.int64)
    last[qid] = np.arange(len(row))  # numpy keeps the last of several assignments
    finish = np.full(len(row), GOES_ON, dtype=np.int64)
    # The recorder writes an extend's result after processing it, so its finish comes between launch
    # and result.
    begins = np.where(rows.accept_len[row] == NONE32, launch_events(recording)[row], event)
    at = last[last >= 0]
    num_gaps = len(recording.gaps.dropped)
    whole = _whole(recording) & (_gaps_before(recording, begins[at]) == num_gaps)
    finish[at[~whole]] = LOST  # replaced below if the finish was recorded
    ends = last[recording.finishes.qid]
    seen, finished = np.flatnonzero(ends >= 0), recording.event_of(Kind.FINISH)
    ends, finished = ends[seen], finished[seen]
    inside = (begins[ends] < finished) & (finished < event[ends])
    breaks = recording.breaks
    unbroken = np.searchsorted(breaks, event[ends]) == np.searchsorted(breaks, finished)
    # If the recording, or the part of it that a gap left, ends between the finish and the result of
    # an extend, that result is missing. The result before it did not end the request: the request
    # has more outputs than that result accounts for. A result that may belong to a prompt chunk
    # does not count either, because its output would be that of another result.
    its = _outputs_after(recording, row[ends]) == recording.finishes.output_len[seen]
    unbroken &= ~unsure[row[ends]]
    finish[ends] = np.where((inside | unbroken) & its, seen, LOST)
    finish[unsure[row] & (finish == GOES_ON)] = LOST
    return Decisions(row, finish)


def _whole(recording: Recording) -> bool:
    """Whether the process was recorded to its end, so that nothing is missing after the last event."""
    return bool(recording.stats and recording.stats.closed and not recording.damage)


def _outputs_after(recording: Recording, row: I64) -> I64:
    """Return the output count of each row's request after that result is processed; an extend's result adds one."""
    rows = recording.result_rows
    emitted = np.where(rows.num_emitted[row] == NONE32, 1, rows.num_emitted[row])
    return rows.output_len[row].astype(np.int64) + emitted


def _gaps_before(recording: Recording, event: I64) -> I64:
    return np.searchsorted(recording.event_of(Kind.GAP), event)


def _event_of_rows(recording: Recording) -> I64:
    return recording.event_of(Kind.RESULT)[recording.owner(Kind.RESULT)]


@dataclass(frozen=True, slots=True, eq=False)
class Chunks:
    """Which `result_rows` (bool) belong to a prompt chunk with more of the prompt to come.

    The token of such a chunk is discarded and nothing is decided. `unsure` marks the rows for which
    this is unknown because their extend or launch is in a gap.
    """

    inside: NDArray[np.bool_]
    unsure: NDArray[np.bool_]


@lru_cache(maxsize=1)  # each event of a request's life needs it again
def chunks_of(recording: Recording) -> Chunks:
    """Find the result rows of prompt chunks: those whose last extend before the launch was a chunk."""
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
    mine = np.flatnonzero(rows.accept_len == NONE32)  # results of extends
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
    """Return the launch event that each result row answers; if unknown, -1, which is before every event."""
    answered = recording.results.launch[recording.owner(Kind.RESULT)]
    if not len(recording.launches.launch):
        return np.full(len(answered), -1)
    place = np.searchsorted(recording.launches.launch, answered).clip(
        0, len(recording.launches.launch) - 1
    )
    launched = recording.event_of(Kind.LAUNCH)[place]
    return np.where(answered == NONE64, -1, launched)
