"""Tables on a terminal that is narrower than they are: text folds; no column goes, and no number loses a digit."""

from __future__ import annotations

from rich.console import Console
from rich.measure import Measurement, measure_renderables
from rich.table import Table

WHOLE = 20  # columns: a word no longer than this is not broken


def fit(console: Console, table: Table, wide: int) -> bool:
    """Set the widths of its columns. False: it has no room side by side, and is as wide as it likes, `wide` at most.

    Left to itself rich makes columns as narrow as nothing, and cuts short what may not fold.
    """
    for column in table.columns:
        column.width = None
    unbounded = console.options.update(width=wide)
    natural = table.width = Measurement.get(console, unbounded, table).maximum
    widths, least = [], []
    for column in table.columns:
        cell = measure_renderables(console, unbounded, [column.header, *column.cells])
        widths.append(max(cell.maximum, column.min_width or 0))
        least.append(widths[-1] if column.no_wrap else min(cell.minimum, WHOLE))
    over = natural - console.width
    if over > sum(widths) - sum(least):
        return False
    for _ in range(over):
        at = max((i for i, width in enumerate(widths) if width > least[i]), key=widths.__getitem__)
        widths[at] -= 1
    for column, width in zip(table.columns, widths, strict=True):
        column.width = width
    table.width = None
    return True
