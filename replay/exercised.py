"""Count how often a recording reached each branch of the books.

Branches with a zero count are listed too: a recording cannot judge a branch that it never reached.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..recorders.recording import Recording
from ..recorders.schema import NONE32, NONE64, ControlAct, Kind, Mode, Reason
from .decisions import decisions
from .tails import tails


def exercised(recording: Recording) -> dict[str, int]:
    """Return branch name -> count, always with the same names in the same order."""
    masks = {
        **_results(recording),
        **_tails(recording),
        **_finishes(recording),
        **_releases(recording),
        **_batches(recording),
        **_requests(recording),
        **_turns(recording),
        **_controls(recording),
    }
    return {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}


def _results(recording: Recording) -> dict[str, NDArray[np.bool_]]:
    """Branches of decode results."""
    rows = recording.result_rows
    decode = rows.accept_len != NONE32
    retracted = decode & (rows.is_retracted == 1)
    finished = decode & (rows.finished == 1) & ~retracted
    return {
        "live-result": decode & ~retracted & ~finished,
        "stale-finished-1": finished & (rows.accept_len == 1),
        "stale-finished-many": finished & (rows.accept_len > 1),
        "stale-retracted-1": retracted & (rows.accept_len == 1),
        "stale-retracted-many": retracted & (rows.accept_len > 1),
        "grammar-done": rows.grammar_done == 1,
        "grammar-cut": decode & (rows.num_emitted < rows.accept_len),
        "result-unpaired": recording.results.launch == NONE64,
        "draft-length-changed": _draft_length_changed(recording),
    }


def _tails(recording: Recording) -> dict[str, NDArray[np.bool_]]:
    """Branches of requests decoded beside a prefill chunk (tails)."""
    rows, tail = recording.result_rows, tails(recording).answered
    decided, ends = decisions(recording), np.zeros(len(rows.qid), dtype=bool)
    ends[decided.row[decided.finish >= 0]] = True
    stale = (rows.is_retracted == 1) | (rows.finished == 1)
    return {
        "tail": tail & ~stale & ~ends,
        "tail-ends": tail & ends,
        "tail-stale": tail & stale,
    }


def _finishes(recording: Recording) -> dict[str, NDArray[np.bool_]]:
    """Branches of finishes."""
    finishes = recording.finishes
    capturer = finishes.experts_state != NONE64
    overshoot = (finishes.finished_len != NONE64) & (finishes.output_len > finishes.finished_len)
    return {
        "finish": finishes.qid >= 0,
        "stop-mid-run": overshoot
        & np.isin(finishes.reason, (Reason.STOP_TOKEN, Reason.STOP_STRING)),
        "length-overshoot": overshoot & (finishes.reason == Reason.LENGTH),
        "finish-stop-token": finishes.reason == Reason.STOP_TOKEN,
        "finish-stop-string": finishes.reason == Reason.STOP_STRING,
        "finish-length": finishes.reason == Reason.LENGTH,
        "finish-abort": finishes.reason == Reason.ABORT,
        "rows-requested": capturer & (finishes.return_routed_experts == 1),
        "rows-not-requested": capturer & (finishes.return_routed_experts == 0),
        "rows-overshoot": capturer & overshoot & (finishes.return_routed_experts == 1),
        "start-len": capturer & (finishes.return_routed_experts == 1) & (finishes.start_len > 0),
        "cached-prefix": finishes.cached_tokens > 0,
    }


def _batches(recording: Recording) -> dict[str, NDArray[np.bool_]]:
    """Branches of filters, merges and launches, and gaps."""
    filters, launches = recording.filters, recording.launches
    early = (filters.num_rows == 0) | (filters.num_rows == filters.size_before)
    return {
        "filter": ~early & (filters.size_before != NONE64),
        "filter-early-return": early,
        "merge": recording.merges.num_rows >= 0,
        "launch-decode": launches.mode == Mode.DECODE,
        "launch-extend": launches.mode == Mode.EXTEND,
        "launch-mixed": launches.mode == Mode.MIXED,
        "prefill-between-decodes": _between_decodes(launches.mode),
        "overlap-skipped": _overlap_skipped(recording),
        "batch-emptied": (filters.num_rows == 0) & (filters.size_before > 0),
        "launch-idle": launches.mode == Mode.IDLE,
        "launch-idle-amid-decodes": _amid_decodes(launches.mode),
        "gap": recording.gaps.dropped > 0,
    }


def _draft_length_changed(recording: Recording) -> NDArray[np.bool_]:
    """Mark decode results whose width is not the worker's draft length at the time they are processed."""
    results = recording.results
    decode = np.zeros(len(results.mode), dtype=bool)
    decode[recording.owner(Kind.RESULT)[recording.result_rows.accept_len != NONE32]] = True
    width = recording.result_width
    changed: NDArray[np.bool_] = (results.worker_stride != NONE64) & (
        width != results.worker_stride
    )
    return decode & (width > 0) & changed


def _between_decodes(mode: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark prefill launches directly between two decode launches."""
    between = np.zeros(len(mode), dtype=bool)
    decode = mode == Mode.DECODE
    between[1:-1] = (mode[1:-1] == Mode.EXTEND) & decode[:-2] & decode[2:]
    return between


def _overlap_skipped(recording: Recording) -> NDArray[np.bool_]:
    """Mark launches for which sglang waited for the previous step's result although the batch was already prepared."""
    ready = np.sort(
        np.concatenate([recording.event_of(Kind.EXTEND), recording.event_of(Kind.PREPARE)])
    )
    launched, results = recording.event_of(Kind.LAUNCH), recording.event_of(Kind.RESULT)
    place = np.searchsorted(ready, launched) - 1
    if not len(ready):
        return np.zeros(len(launched), dtype=bool)
    since = np.searchsorted(results, ready[np.maximum(place, 0)])
    skipped: NDArray[np.bool_] = (place >= 0) & (np.searchsorted(results, launched) > since)
    return skipped


def _amid_decodes(mode: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark idle launches while a request is decoding: the next launch that is not idle is a decode, not a prefill."""
    idle = mode == Mode.IDLE
    others = np.flatnonzero(~idle)
    following = np.append(mode[others], NONE64)[np.searchsorted(others, np.arange(len(mode)))]
    return np.asarray(idle & (following == Mode.DECODE))


def _releases(recording: Recording) -> dict[str, NDArray[np.bool_]]:
    """Branches of KV releases."""
    releases = recording.releases
    held = (releases.allocated != NONE64) & (releases.allocated != NONE32)
    asked = held & (releases.released_len != NONE64)
    return {
        "release": held,
        "release-overallocated": held & (releases.allocated > releases.committed),
        "release-trimmed": asked & (releases.released_len < releases.committed),
    }


def _requests(recording: Recording) -> dict[str, NDArray[np.bool_]]:
    """Branches of retracts, extends and aborts."""
    rows = recording.extend_rows
    return {
        "retract": recording.retracts.qid >= 0,
        "re-prefill": _after_retract(recording),
        "chunked-prefill": rows.chunked == 1,
        "abort-running": recording.aborts.queued == 0,
        "abort-queued": recording.aborts.queued == 1,
    }


def _turns(recording: Recording) -> dict[str, NDArray[np.bool_]]:
    """Branches of streaming sessions."""
    saves, restores = recording.saves, recording.restores
    kept = saves.committed != NONE64
    return {
        "turn-kept": kept,
        "turn-trimmed": kept & (saves.committed < saves.committed_before),
        "turn-aborted": saves.reason == Reason.ABORT,
        "turn-retracted": saves.reason == NONE64,
        "turn-inherits": restores.committed != NONE64,
    }


def _after_retract(recording: Recording) -> NDArray[np.bool_]:
    """Mark extend rows of requests that were retracted before."""
    first = np.full(len(recording.rids) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, recording.retracts.qid, recording.event_of(Kind.RETRACT))
    rows = recording.extend_rows
    mask: NDArray[np.bool_] = (
        recording.event_of(Kind.EXTEND)[recording.owner(Kind.EXTEND)] > first[rows.qid]
    )
    return mask


def _controls(recording: Recording) -> dict[str, NDArray[np.bool_]]:
    """Branches of control messages."""
    act = recording.controls.act
    return {
        "paused-in-place": act == ControlAct.PAUSE,
        "paused-retracting": act == ControlAct.PAUSE_RETRACT,
        "weights-changed": act == ControlAct.WEIGHTS,
        "cache-flushed": act == ControlAct.FLUSH,
    }
