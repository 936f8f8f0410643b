"""Explain in a phrase why two paths differ at a cell, from what the recording says about that event."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..recorders.recording import Recording
from ..recorders.schema import NONE64, Kind
from .cells import Moment
from .columns.shared import Columns
from .diff import SeriesDiff
from .ledger import Series
from .quantity import Quantity
from .true_sum import stale_sums, true_sum

_SAYS = {
    Kind.FINISH: "the length with which the request finishes",
    Kind.RELEASE: "the length by which its KV is released",
}
_ROWS = (Quantity.ROUTED_EXPERTS, Quantity.INDEXER_TOPK)


def cause(columns: Columns, difference: SeriesDiff, cell: int) -> str:
    """Return the phrase for the cell, in terms of its quantity and event."""
    if difference.quantity in _ROWS:
        return _rows_cause(columns.recording, difference, cell)
    if difference.quantity is Quantity.SEQ_LENS_SUM:
        return _sum_cause(columns, difference, cell)
    if difference.quantity is Quantity.FINISH:
        return "the finish is decided differently for the same tokens and stop conditions"
    if difference.quantity is Quantity.SPEC_HISTOGRAM:
        return "the histogram of accepted drafts, at the finish"
    if difference.quantity is Quantity.SESSION_COMMITTED:
        return _session_cause(columns.recording, difference, cell)
    return _counter_cause(columns.recording, difference, cell)


def _session_cause(recording: Recording, difference: SeriesDiff, cell: int) -> str:
    cells = difference.old.cells
    if Kind(int(cells.kind[cell])) is Kind.SESSION_SAVE:
        return "kept by the session for its next turn"
    return f"inherited by a turn of {int(recording.restores.key_len[int(cells.row[cell])])} prompt tokens"


def _counter_cause(recording: Recording, difference: SeriesDiff, cell: int) -> str:
    """Explain a difference in a length or counter."""
    cells = difference.old.cells
    kind, moment = Kind(int(cells.kind[cell])), Moment(int(cells.moment[cell]))
    if kind in _SAYS:
        return _SAYS[kind]
    if moment is Moment.BEFORE:
        return f"it differs already before this {kind.name.lower()}{_why_not_seen_before(difference, cell)}"
    change = _change(difference, cell)
    if kind is Kind.PREPARE:
        what = "allocated" if difference.quantity is Quantity.KV_ALLOCATED_LEN else "claimed"
        return f"slots {what} at prepare: {change}"
    return f"{state_of_result(recording, int(cells.row[cell]))}: {change}"


def _why_not_seen_before(difference: SeriesDiff, cell: int) -> str:
    """Say so if the request's length before was not captured, so that nothing shows what changed it."""
    cells = difference.old.cells
    before = torch.nonzero(cells.qid[:cell] == cells.qid[cell]).flatten()
    if not len(before) or not difference.not_captured[before[-1]]:
        return ""
    return ", from an event after which its length was not captured"


def state_of_result(recording: Recording, row: int) -> str:
    """Say whether a result row is live or stale, and why it is stale."""
    rows = recording.result_rows
    if rows.is_retracted[row] == 1:
        return "stale result of a retracted request"
    if rows.finished[row] == 1:
        return "stale result of a finished request"
    return "result of a running request"


def _change(difference: SeriesDiff, cell: int) -> str:
    """Return by how much each path changed its value in this event.

    Both paths are named even if one changed nothing: either of them may be the wrong one. Counters
    have no cell before the event, so for them this is the difference between the paths, unless the
    request's result before shows it already.
    """
    old, new = (_delta(series, cell) for series in (difference.old, difference.new))
    one, other = difference.paths
    if old is None or new is None:
        gap, earlier = _gap(difference, cell), _earlier_gap(difference, cell)
        if gap == earlier:
            return "the values already differed before"
        more, less = (one, other) if gap > 0 else (other, one)
        already = f"; the values already differed before, by {abs(earlier)}" if earlier else ""
        return f"{abs(gap)} more under {more} than under {less}{already}"
    if old == new:
        return f"{old:+d} under both; the values already differed before"
    return f"{old:+d} under {one}, {new:+d} under {other}"


def _gap(difference: SeriesDiff, cell: int) -> int:
    return int(difference.old.values[cell, 0]) - int(difference.new.values[cell, 0])


def _earlier_gap(difference: SeriesDiff, cell: int) -> int:
    """Return by how much the request's values differ at its cell before this one; 0 if there is none."""
    cells = difference.old.cells
    before = torch.nonzero(cells.qid[:cell] == cells.qid[cell]).flatten()
    if not len(before) or not difference.differs[before[-1]]:
        return 0
    return _gap(difference, int(before[-1]))


def _delta(series: Series, cell: int) -> int | None:
    """Return by how much the cell's event changed the value; None if there is no cell before the event."""
    cells = series.cells
    twin = (
        (cells.event == cells.event[cell])
        & (cells.row == cells.row[cell])
        & (cells.moment == Moment.BEFORE)
    )
    before = torch.nonzero(twin).flatten()
    return int(series.values[cell, 0] - series.values[before[0], 0]) if len(before) else None


def _sum_cause(columns: Columns, difference: SeriesDiff, cell: int) -> str:
    """Compare each sum with the true sum of its own batch (see `true_sum`)."""
    kind = Kind(int(difference.old.cells.kind[cell])).name.lower()
    says, truths, stale = [], [], []
    for name, series in _named(difference):
        true = true_sum(columns, series, name)
        value, known = int(series.values[cell, 0]), bool(true.known[cell])
        is_stale = stale_sums(series, true)
        state = "" if not known else " (stale)" if is_stale[cell] else " (true)"
        says.append(f"{name} is {'None' if value == NONE64 else f'{value}{state}'}")
        if known and value != NONE64:
            truths.append(str(int(true.value[cell])))
        stale.append(_how_many(difference, name, is_stale))
    truth = " or ".join(dict.fromkeys(truths)) or "not known"
    return f"after {kind}, {', '.join(says)}; true sum: {truth}{''.join(stale)}"


def _named(difference: SeriesDiff) -> Iterator[tuple[str, Series]]:
    return zip(difference.paths, (difference.old, difference.new), strict=True)


def _how_many(difference: SeriesDiff, name: str, stale: torch.Tensor) -> str:
    """Count the stale sums among all differing cells, not only this one."""
    number, of = int((stale & difference.differs).sum()), int(difference.differs.sum())
    if not number:
        return ""
    if of == 1:
        return f"; the only differing sum is known to be stale under {name}"
    return f"; {number} of the {of} differing sums {'is' if number == 1 else 'are'} known to be stale under {name}"


def _rows_cause(recording: Recording, difference: SeriesDiff, cell: int) -> str:
    """Explain which rows one side collects and the other does not."""
    one, other = difference.paths
    finishes, row = recording.finishes, int(difference.old.cells.row[cell])
    old, new = (series.values[cell].tolist() for series in (difference.old, difference.new))
    if old[0] != new[0]:
        asked = finishes.return_routed_experts[row] == 1
        return (
            f"rows collected under {one if old[0] else other} only, "
            f"for a request that {'asked' if asked else 'did not ask'} for them"
        )
    reasons = []
    if old[1] != new[1]:
        reasons.append(
            f"start_len {max(old[1], new[1])} ignored under {one if old[1] < new[1] else other}: "
            f"{_count(abs(old[1] - new[1]), 'row')} too many"
        )
    if old[2] != new[2]:
        longer = one if old[2] > new[2] else other
        reasons.append(_end_cause(recording, row, abs(old[2] - new[2]), longer))
    return "; ".join(reasons)


def _end_cause(recording: Recording, row: int, rows: int, longer: str) -> str:
    """`longer`: the path whose rows end later."""
    finishes = recording.finishes
    stop, outputs = int(finishes.finished_len[row]), int(finishes.output_len[row])
    if stop == NONE64 or outputs <= stop:
        return f"{_count(rows, 'row')} more under {longer}, and there is no output after a stop"
    return f"{_count(rows, 'row')} after the stop under {longer} ({_count(outputs - stop, 'token')} of overshoot)"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
