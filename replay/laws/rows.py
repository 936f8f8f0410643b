"""The law `rows`: the routed rows collected at a finish match the tokens up to the stop."""

from __future__ import annotations

import torch
from torch import Tensor

from ...recorders.schema import NONE64
from ..columns.shared import Columns
from ..ledger import Ledger, Series
from ..quantity import Quantity
from ..tensors import column
from .law import Places, exactly, together


def rows(columns: Columns, ledger: Ledger) -> Places:
    """Rows = max(0, prompt + returned outputs - 1 - start_len) if they were requested.

    If routed experts were not requested, there are no rows of them. The indexer has no start_len.
    If the start_len is not known, only too many rows for any start_len are a breach.
    """
    finish, series = columns.finish_rows, ledger[Quantity.ROUTED_EXPERTS]
    collected, row = _collected(series)
    expected = finish.origin_len + finish.finished_len - 1 - finish.start_len
    expected = torch.where(finish.requested, expected.clamp(min=0), 0)[row]
    known = ~finish.requested | (column(columns.recording.finishes.start_len) != NONE64)
    experts = _places(series, collected, expected)
    indexer, at = _collected(ledger[Quantity.INDEXER_TOPK])
    whole = (finish.origin_len + finish.finished_len - 1).clamp(min=0)[at]
    return together(
        [
            experts.some(experts.certain(known[row])),
            _places(ledger[Quantity.INDEXER_TOPK], indexer, whole),
        ]
    )


def _collected(series: Series) -> tuple[Tensor, Tensor]:
    """Return the captured cells and the rows of `finishes` that they belong to."""
    at = torch.nonzero(series.captured).flatten()
    return at, series.cells.row[at]


def num_rows(series: Series, at: Tensor) -> Tensor:
    """Return the number of rows of each of these cells; 0 if none were collected."""
    return (series.values[at, 2] - series.values[at, 1]) * series.values[at, 0]


def _places(series: Series, at: Tensor, expected: Tensor) -> Places:
    cells = series.cells
    name, rows = series.quantity.value, num_rows(series, at)
    return exactly(name, cells.event[at], cells.qid[at], rows, expected)
