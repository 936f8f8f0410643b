"""Laws E (routed rows) and R (what an RL trainer relies on): the rows that a client is sent fit its tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from ..columns.shared import Columns
from ..ledger import Ledger, Series
from ..quantity import Quantity
from .law import Places, exactly, together


def rows(columns: Columns, ledger: Ledger) -> Places:
    """max(0, prompt + returned outputs - 1 - start_len) rows for who asked, none for who did not."""
    finish, series = columns.finish_rows, ledger[Quantity.ROUTED_EXPERTS]
    collected, row = _collected(series)
    expected = finish.origin_len + finish.finished_len - 1 - finish.start_len
    expected = torch.where(finish.requested, expected.clamp(min=0), 0)[row]
    indexer, at = _collected(ledger[Quantity.INDEXER_TOPK])
    whole = (finish.origin_len + finish.finished_len - 1).clamp(min=0)[at]
    return together(
        [
            _places(series, collected, expected),
            _places(ledger[Quantity.INDEXER_TOPK], indexer, whole),
        ]
    )


def trainer(columns: Columns, ledger: Ledger) -> Places:
    """rows + start_len + 1 == prompt tokens + returned tokens, for every request that asked and got rows."""
    finish, series = columns.finish_rows, ledger[Quantity.ROUTED_EXPERTS]
    collected, row = _collected(series)
    asked = finish.requested[row] & (series.values[collected, 0] == 1)
    # A start at the end of the sequence leaves no row to align.
    asked &= finish.origin_len[row] + finish.finished_len[row] - 1 > finish.start_len[row]
    at, row = collected[asked], row[asked]
    found = _num_rows(series, at) + finish.start_len[row] + 1
    expected = finish.origin_len[row] + finish.finished_len[row]
    return exactly(series.cells.event[at], series.cells.qid[at], found, expected)


def _collected(series: Series) -> tuple[Tensor, Tensor]:
    """Captured cells, and the rows of `finishes` that they belong to."""
    at = torch.nonzero(series.captured).flatten()
    return at, series.cells.row[at]


def _num_rows(series: Series, at: Tensor) -> Tensor:
    return (series.values[at, 2] - series.values[at, 1]) * series.values[at, 0]


def _places(series: Series, at: Tensor, expected: Tensor) -> Places:
    cells = series.cells
    return exactly(cells.event[at], cells.qid[at], _num_rows(series, at), expected)
