"""Tables on a terminal that is narrower than they are: text folds; no column goes, and no number loses a digit."""

from __future__ import annotations

from rich.console import Console
from rich.measure import Measurement, measure_renderables
from rich.table import Table

_UNBOUNDED = 10**7  # a client chooses how long its request's id is
WHOLE = 20  # columns: a word no longer than this is not broken


def fit(console: Console, table: Table) -> bool:
    """Set the widths of its columns. False: it has no room side by side, and is as wide as it must be.

    Left to itself rich makes columns as narrow as nothing, and cuts short what may not fold.
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
        # First what breaks no word, and the widest of those.
        able = (i for i, width in enumerate(widths) if width > least[i])
        widths[max(able, key=lambda i: (widths[i] > words[i], widths[i]))] -= 1
    for column, width in zip(table.columns, widths, strict=True):
        column.width = width
    table.width = None if over <= slack else natural - slack
    return over <= slack
