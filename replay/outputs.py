"""The output tokens of each request, taken from the results."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ..recorders.recording import Recording, row_starts
from ..recorders.schema import NONE32, Kind

UNKNOWN = np.iinfo(np.int64).min  # a position that no recorded result filled


def outputs(recording: Recording, qids: Iterable[int]) -> dict[int, NDArray[np.int64]]:
    """Return for each request the tokens of its live results, each at its output position, overshoot included.

    A position is `UNKNOWN` if its result is not in the recording: a gap lost it, or another server
    computed it.
    """
    results, rows = recording.results, recording.result_rows
    owner = recording.owner(Kind.RESULT)
    within = np.arange(len(owner)) - row_starts(results.num_rows)[owner]
    width = recording.result_width[owner]
    start = row_starts(results.num_tokens)[owner] + within * width
    live = np.flatnonzero((rows.finished != 1) & (rows.is_retracted != 1))
    by_qid = live[np.argsort(rows.qid[live], kind="stable")]
    sorted_qids = rows.qid[by_qid]
    epoch = _gaps_before(recording, Kind.RESULT)[owner]
    ends = _ends(recording)
    found = {}
    for qid in qids:
        low, high = np.searchsorted(sorted_qids, (qid, qid + 1))
        mine = by_qid[low:high]
        before = rows.output_len[mine].astype(np.int64)
        # How many tokens an extend's result added follows from the next output count: all chunks of
        # a prompt except the last add none. Across a gap that cannot be determined.
        end = ends.get(qid, (UNKNOWN, UNKNOWN))
        after, later = np.append(before[1:], end[0]), np.append(epoch[mine][1:], end[1])
        extended = np.where(later == epoch[mine], after - before, 0)
        count = np.where(rows.accept_len[mine] == NONE32, extended, rows.num_emitted[mine])
        count = np.where((count < 0) | (count > width[mine]), 0, count)
        tokens = np.full(int((before + count).max(initial=0)), UNKNOWN)
        for at, first, many in zip(before, start[mine], count, strict=True):
            tokens[at : at + many] = recording.tokens[first : first + many]
        found[qid] = tokens
    return found


def _ends(recording: Recording) -> dict[int, tuple[int, int]]:
    """Return for each request its output count at the finish and the number of gaps before it."""
    finishes = recording.finishes
    gaps = _gaps_before(recording, Kind.FINISH).tolist()
    values = zip(finishes.output_len.tolist(), gaps, strict=True)
    return dict(zip(finishes.qid.tolist(), values, strict=True))


def _gaps_before(recording: Recording, kind: Kind) -> NDArray[np.int64]:
    """Return the number of gaps before each event of this kind."""
    found: NDArray[np.int64] = np.searchsorted(recording.breaks, recording.event_of(kind))
    return found
