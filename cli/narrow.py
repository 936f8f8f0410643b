"""Fit tables to a narrow terminal. Text wraps; no column is dropped and no number is truncated."""

from __future__ import annotations

from rich.console import Console
from rich.measure import Measurement, measure_renderables
from rich.table import Table

_UNBOUNDED = 10**7  # columns; clients choose request ids of any length
WHOLE = 20  # columns; words up to this length are not broken


def fit(console: Console, table: Table) -> bool:
    """Set the column widths. Returns False if the columns do not fit; the table then has its minimum width.

    Without this, rich shrinks columns to nothing and truncates cells that must not wrap.
    """
    table.width = None
    for column in table.columns:
        column.width = None
    unbounded = console.options.update(width=_UNBOUNDED)
    natural = Measurement.get(console, unbounded, table).maximum
    widths, least, words = [], [], []
    for column in table.columns:
        cell = measure_renderables(console, unbounded, [column.header, *column.cells])
        widths.append(max(cell.maximum, column.min_width or 0))
        least.append(widths[-1] if column.no_wrap else min(cell.minimum, WHOLE))
        words.append(cell.minimum)
    over, slack = natural - console.width, sum(widths) - sum(least)
    for _ in range(min(over, slack)):
        # Shrink columns that break no word first; of those, the widest.
        able = (i for i, width in enumerate(widths) if width > least[i])
        widths[max(able, key=lambda i: (widths[i] > words[i], widths[i]))] -= 1
    for column, width in zip(table.columns, widths, strict=True):
        column.width = width
    table.width = None if over <= slack else natural - slack
    return over <= slack
