"""The law `sums`: a batch's seq_lens_sum is the sum of its seq_lens, or None."""

from __future__ import annotations

import torch

from ...recorders.schema import NONE64
from ..columns.shared import Columns
from ..ledger import Ledger
from ..quantity import Quantity
from ..true_sum import true_sum
from .law import Places, exactly


def sums(columns: Columns, ledger: Ledger) -> Places:
    """Compare every seq_lens_sum with the true sum. None is allowed everywhere."""
    series = ledger[Quantity.SEQ_LENS_SUM]
    true, found = true_sum(columns, series, ledger.path), series.values[:, 0]
    at = torch.nonzero(series.captured & true.known & (found != NONE64)).flatten()
    cells = series.cells
    name = series.quantity.value
    return exactly(name, cells.event[at], cells.qid[at], found[at], true.value[at])
