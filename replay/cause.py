"""Why two paths part at a cell, in a phrase made of what the recording says about that event."""

from __future__ import annotations

import torch

from ..recorders.recording import Recording
from ..recorders.schema import NONE64, Kind
from .cells import Moment
from .columns.shared import Columns
from .diff import SeriesDiff
from .ledger import Series
from .quantity import Quantity

_SAYS = {
    Kind.FINISH: "the request finishes with it",
    Kind.RELEASE: "its KV is released by it",
}
_ROWS = (Quantity.ROUTED_EXPERTS, Quantity.INDEXER_TOPK)


def cause(columns: Columns, difference: SeriesDiff, cell: int, names: tuple[str, str]) -> str:
    """`names`: what the two paths are called in the phrase."""
    if difference.quantity in _ROWS:
        return _rows_cause(columns.recording, difference, cell)
    if difference.quantity is Quantity.SEQ_LENS_SUM:
        return _sum_cause(columns, difference, cell, names)
    if difference.quantity is Quantity.FINISH:
        return "the finish is decided differently for the same tokens and stop conditions"
    if difference.quantity is Quantity.SPEC_HISTOGRAM:
        return "the histogram of accepted drafts, at the finish"
    if difference.quantity is Quantity.SESSION_COMMITTED:
        return _session_cause(columns.recording, difference, cell)
    return _counter_cause(columns.recording, difference, cell, names)


def _session_cause(recording: Recording, difference: SeriesDiff, cell: int) -> str:
    cells = difference.old.cells
    if Kind(int(cells.kind[cell])) is Kind.SESSION_SAVE:
        return "kept by the session for its next turn"
    return f"inherited by a turn of {int(recording.restores.key_len[int(cells.row[cell])])} prompt tokens"


def _counter_cause(
    recording: Recording, difference: SeriesDiff, cell: int, names: tuple[str, str]
) -> str:
    cells = difference.old.cells
    kind, moment = Kind(int(cells.kind[cell])), Moment(int(cells.moment[cell]))
    if kind in _SAYS:
        return _SAYS[kind]
    if moment is Moment.BEFORE:
        return f"it differs already when this {kind.name.lower()} begins"
    change = _change(difference, cell, names)
    if kind is Kind.PREPARE:
        what = "allocated" if difference.quantity is Quantity.KV_ALLOCATED_LEN else "claimed"
        return f"slots {what} at prepare: {change}"
    return f"{state_of_result(recording, int(cells.row[cell]))}: {change}"


def state_of_result(recording: Recording, row: int) -> str:
    rows = recording.result_rows
    if rows.is_retracted[row] == 1:
        return "stale result applied to a retracted request"
    if rows.finished[row] == 1:
        return "stale result applied to a finished request"
    return "result of a running request"


def _change(difference: SeriesDiff, cell: int, names: tuple[str, str]) -> str:
    """By how much each path changed its value in this event; counters have no cell before, so their gap is shown."""
    old, new = (_delta(series, cell) for series in (difference.old, difference.new))
    if old is None or new is None:
        gap = int(difference.old.values[cell, 0]) - int(difference.new.values[cell, 0])
        return f"{gap:+d}"
    return f"{old:+d}" if new == 0 else f"{old:+d} under {names[0]}, {new:+d} under {names[1]}"


def _delta(series: Series, cell: int) -> int | None:
    cells = series.cells
    twin = (
        (cells.event == cells.event[cell])
        & (cells.row == cells.row[cell])
        & (cells.moment == Moment.BEFORE)
    )
    before = torch.nonzero(twin).flatten()
    return int(series.values[cell, 0] - series.values[before[0], 0]) if len(before) else None


def _sum_cause(columns: Columns, difference: SeriesDiff, cell: int, names: tuple[str, str]) -> str:
    event = int(difference.old.cells.event[cell])
    kind = Kind(int(difference.old.cells.kind[cell])).name.lower()
    true = columns.true_sums
    truth = f"true sum {int(true.value[event])}" if true.known[event] else "true sum not known"
    says = []
    for name, series in zip(names, (difference.old, difference.new), strict=True):
        value = int(series.values[cell, 0])
        stale = stale_sums(columns, series)
        state = "" if not true.known[event] else "stale " if stale[cell] else "true "
        says.append(f"{name} holds {'None' if value == NONE64 else f'{state}{value}'}")
    return f"after {kind} {', '.join(says)} ({truth}){_how_many_stale(columns, difference, names)}"


def _how_many_stale(columns: Columns, difference: SeriesDiff, names: tuple[str, str]) -> str:
    """Of all differing sums, not of this one."""
    said = []
    for name, series in zip(names, (difference.old, difference.new), strict=True):
        if number := int((stale_sums(columns, series) & difference.differs).sum()):
            said.append(
                f"; {number} of the {int(difference.differs.sum())} differing sums are stale under {name}"
            )
    return "".join(said)


def stale_sums(columns: Columns, series: Series) -> torch.Tensor:
    """Cells whose number contradicts the true lengths (bool)."""
    event = series.cells.event
    true, known = (
        torch.from_numpy(columns.true_sums.value),
        torch.from_numpy(columns.true_sums.known),
    )
    value = series.values[:, 0]
    return series.captured & known[event] & (value != NONE64) & (value != true[event])


def _rows_cause(recording: Recording, difference: SeriesDiff, cell: int) -> str:
    finishes, row = recording.finishes, int(difference.old.cells.row[cell])
    old, new = (series.values[cell].tolist() for series in (difference.old, difference.new))
    if old[0] != new[0]:
        asked = finishes.return_routed_experts[row] == 1
        return f"rows collected on one side only, for a request that {'asked' if asked else 'did not ask'} for them"
    reasons = []
    if old[1] != new[1]:
        reasons.append(
            f"start_len {max(old[1], new[1])} ignored: {_count(abs(old[1] - new[1]), 'row')} too many"
        )
    if old[2] != new[2]:
        reasons.append(_end_cause(recording, row, abs(old[2] - new[2])))
    return "; ".join(reasons)


def _end_cause(recording: Recording, row: int, rows: int) -> str:
    finishes = recording.finishes
    stop, outputs = int(finishes.finished_len[row]), int(finishes.output_len[row])
    if stop == NONE64 or outputs <= stop:
        return f"the ends are {_count(rows, 'row')} apart, and no output lies behind a stop"
    return f"{_count(rows, 'row')} behind the stop ({_count(outputs - stop, 'token')} of overshoot)"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
