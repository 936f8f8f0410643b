"""Compare the contents of the routed rows that two paths collect, as far as the recording holds them.

No path computes the contents of a row. Each path says which rows [start, end) it collects; those
rows are taken from what the server's capturer recorded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..recorders.recording import Recording
from ..recorders.stored_rows import StoredRows
from .diff import SeriesDiff
from .quantity import Quantity

WHICH = {Quantity.ROUTED_EXPERTS: "experts", Quantity.INDEXER_TOPK: "indexer"}


@dataclass(frozen=True, slots=True)
class Contents:
    """Counts of finishes at which at least one path collects rows.

    They say at how many finishes both paths' rows were compared, at how many they differed, and at
    how many the recording does not hold all of them.
    """

    num_compared: int
    num_differed: int
    num_not_captured: int


def contents(recording: Recording, difference: SeriesDiff) -> Contents | None:
    """Compare the rows, or return None for other quantities and if no path collects any rows."""
    which = WHICH.get(difference.quantity)
    if which is None:
        return None
    old, new = difference.old, difference.new
    concerned = old.captured & new.captured & ((old.values[:, 0] != 0) | (new.values[:, 0] != 0))
    cells = torch.nonzero(concerned).flatten()
    if not len(cells):
        return None
    stored = StoredRows(recording, which)
    says = [
        None if recording.rows_replaced else _differ(stored, finish, one, other)
        for finish, one, other in zip(
            old.cells.row[cells].tolist(),
            old.values[cells].tolist(),
            new.values[cells].tolist(),
            strict=True,
        )
    ]
    return Contents(len(says) - says.count(None), says.count(True), says.count(None))


def _differ(stored: StoredRows, finish: int, one: list[int], other: list[int]) -> bool | None:
    """Whether the rows differ. `one` and `other` are (collected, start, end).

    Return None if the recording does not hold all rows of either path.
    """
    slices = [(start, end) for collected, start, end in (one, other) if collected]
    if not all(stored.holds(finish, start, end) for start, end in slices):
        return None
    if len(slices) == 1:
        return True  # only one side collected rows, even if there are none in the span
    if slices[0] == slices[1]:
        return False
    old, new = (stored.rows(finish, start, end) for start, end in slices)
    return not np.array_equal(old, new)
