"""Which seq_lens_sum is true, and where that is known: the law `sums` goes by it, and what is called stale."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..recorders.schema import NONE64, Kind, Mode
from .columns.shared import Columns
from .columns.sums import tails_of_launches
from .ledger import Series
from .tensors import column


@dataclass(frozen=True, slots=True, eq=False)
class TrueSum:
    """Per cell: int64, and bool where it can be said."""

    value: Tensor
    known: Tensor


def true_sum(columns: Columns, series: Series, path: str) -> TrueSum:
    """Of the cells of a seq_lens_sum. `path`: whose it is. The server's own sums are held against its own `batch.seq_lens`
    where that was recorded; everything else against the lengths that follow from the accepted tokens."""
    cells, true = series.cells, columns.true_sums
    value = torch.from_numpy(true.value)[cells.event]
    known = torch.from_numpy(true.known)[cells.event]
    for kind in (Kind.FILTER, Kind.MERGE, Kind.LAUNCH):
        at = torch.nonzero(cells.kind == kind).flatten()
        row, so_far = cells.row[at], TrueSum(value[at], known[at])
        if kind is Kind.LAUNCH:
            found = _at_launch(columns, row, so_far)
        else:
            found = _between(columns, kind, row, so_far, observed=path == "observed")
        value[at], known[at] = found.value, found.known
    return TrueSum(value, known)


def stale_sums(series: Series, true: TrueSum) -> Tensor:
    """Cells whose number contradicts the true lengths (bool). None contradicts nothing."""
    value = series.values[:, 0]
    return series.captured & true.known & (value != NONE64) & (value != true.value)


def _at_launch(columns: Columns, row: Tensor, true: TrueSum) -> TrueSum:
    recording = columns.recording
    # Beside a chunk a request that decodes is counted with the token that it is about to write.
    mixed = column(recording.launches.mode)[row] == Mode.MIXED
    about = torch.from_numpy(tails_of_launches(recording))[row]
    # Without overlap run_batch itself moves the lengths, before the sum is seen.
    seen = true.known & recording.run.overlap
    return TrueSum(true.value + torch.where(mixed, about, 0), seen)


def _between(
    columns: Columns, kind: Kind, row: Tensor, true: TrueSum, *, observed: bool
) -> TrueSum:
    """After a filter or a merge."""
    table = columns.recording.event_table(kind)
    device = column(table.device_sum)[row]
    left = column(table.num_rows)[row]
    if observed:
        # A batch that has emptied keeps the sum of before, and nobody is in it to be summed.
        has = (device != NONE64) & (left > 0)
        return TrueSum(torch.where(has, device, true.value), (true.known | has) & (left > 0))
    if kind is Kind.FILTER:
        # From 0.5.13 on an early return keeps a sum that is as old as the batch.seq_lens beside it. Of another path that is
        # not known, so that fewer of its sums are said to be stale than of the same numbers observed.
        known = true.known & (left > 0) & (left < column(table.size_before)[row])
        return TrueSum(true.value, known)
    return true
