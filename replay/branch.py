"""Why two paths differ at a cell, without numbers, so that the same situation elsewhere gives the same answer."""

from __future__ import annotations

from ..recorders.recording import Recording
from ..recorders.schema import NONE64, Kind, Reason
from .cause import state_of_result
from .cells import Moment
from .columns.shared import Columns
from .diff import SeriesDiff
from .quantity import Quantity
from .true_sum import stale_sums, true_sum

_ROWS = (Quantity.ROUTED_EXPERTS, Quantity.INDEXER_TOPK)


def branch(columns: Columns, difference: SeriesDiff, cell: int) -> tuple[str, ...]:
    """Return everything in the cell's cause (see `cause`) that is not a number."""
    cells = difference.old.cells
    kind, moment = Kind(int(cells.kind[cell])), Moment(int(cells.moment[cell]))
    return (kind.words, moment.name, *_what(columns, difference, cell, kind, moment))


def _what(
    columns: Columns, difference: SeriesDiff, cell: int, kind: Kind, moment: Moment
) -> tuple[str, ...]:
    """Return the part of the cause that depends on the quantity."""
    if difference.quantity in _ROWS:
        return _rows(columns.recording, difference, cell)
    if difference.quantity is Quantity.SEQ_LENS_SUM:
        return _sums(columns, difference, cell)
    if difference.quantity is Quantity.FINISH:
        return _finishes(difference, cell)
    if kind is Kind.RESULT and moment is Moment.AFTER:
        return (state_of_result(columns.recording, int(difference.old.cells.row[cell])),)
    return ()


def _rows(recording: Recording, difference: SeriesDiff, cell: int) -> tuple[str, ...]:
    """Return which ends of the two row spans differ, whether rows were requested, and whether there is overshoot."""
    finishes, row = recording.finishes, int(difference.old.cells.row[cell])
    old, new = (series.values[cell].tolist() for series in (difference.old, difference.new))
    asked = "asked" if finishes.return_routed_experts[row] == 1 else "not asked"
    if old[0] != new[0]:
        return ("collected on one side", asked)
    stop, outputs = int(finishes.finished_len[row]), int(finishes.output_len[row])
    overshoot = "overshoot" if stop not in (NONE64, outputs) else "no overshoot"
    starts, ends = (
        (("start",) if old[1] != new[1] else ()),
        ((overshoot,) if old[2] != new[2] else ()),
    )
    return (*starts, *ends)


def _sums(columns: Columns, difference: SeriesDiff, cell: int) -> tuple[str, ...]:
    """Return for each side whether its sum is None, of unknown truth, stale or true."""
    says = []
    for name, series in zip(difference.paths, (difference.old, difference.new), strict=True):
        none = int(series.values[cell, 0]) == NONE64
        true = true_sum(columns, series, name)
        known, stale = bool(true.known[cell]), bool(stale_sums(series, true)[cell])
        says.append("None" if none else "unknown" if not known else "stale" if stale else "true")
    return tuple(says)


def _finishes(difference: SeriesDiff, cell: int) -> tuple[str, ...]:
    """Return what each side decided, without lengths."""
    values = (series.values[cell].tolist() for series in (difference.old, difference.new))
    return tuple(Reason(reason).name if ends else "goes on" for ends, reason, _ in values)
