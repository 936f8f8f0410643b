"""Find the true seq_lens_sum and where it is known.

The law `sums` and the stale sums are based on it.
"""

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
    """The true sum of each cell: `value` is int64, and `known` (bool) says where it is valid."""

    value: Tensor
    known: Tensor


def true_sum(columns: Columns, series: Series, path: str) -> TrueSum:
    """Return the true sum for each cell of a seq_lens_sum series that belongs to `path`.

    The server's own sums are compared with its own `batch.seq_lens` if that was recorded. All other
    sums are compared with the lengths that follow from the accepted tokens.
    """
    cells, true = series.cells, columns.true_sums
    value = torch.from_numpy(true.value)[cells.event]
    known = torch.from_numpy(true.known)[cells.event]
    for kind in (Kind.FILTER, Kind.MERGE, Kind.LAUNCH):
        at = torch.nonzero(cells.kind == kind).flatten()
        row, so_far = cells.row[at], TrueSum(value[at], known[at])
        if kind is Kind.LAUNCH:
            found = _at_launch(columns, row, so_far)
        else:
            found = _after_filter_or_merge(columns, kind, row, so_far, observed=path == "observed")
        value[at], known[at] = found.value, found.known
    return TrueSum(value, known)


def stale_sums(series: Series, true: TrueSum) -> Tensor:
    """Mark the cells (bool) whose number contradicts the true lengths. None contradicts nothing."""
    value = series.values[:, 0]
    return series.captured & true.known & (value != NONE64) & (value != true.value)


def _at_launch(columns: Columns, row: Tensor, true: TrueSum) -> TrueSum:
    recording = columns.recording
    # A request that decodes beside a chunk counts with the token that it is about to write.
    mixed = column(recording.launches.mode)[row] == Mode.MIXED
    about = torch.from_numpy(tails_of_launches(recording))[row]
    # Without overlap, run_batch itself advances the lengths before the sum is read.
    seen = true.known & recording.run.overlap
    return TrueSum(true.value + torch.where(mixed, about, 0), seen)


def _after_filter_or_merge(
    columns: Columns, kind: Kind, row: Tensor, true: TrueSum, *, observed: bool
) -> TrueSum:
    """Return the true sums after a filter or a merge."""
    table = columns.recording.event_table(kind)
    device = column(table.device_sum)[row]
    left = column(table.num_rows)[row]
    if observed:
        # A batch that has become empty keeps its previous sum, and there is no request left to sum
        # over.
        has = (device != NONE64) & (left > 0)
        return TrueSum(torch.where(has, device, true.value), (true.known | has) & (left > 0))
    if kind is Kind.FILTER:
        # From 0.5.13 on, an early return keeps a sum that is as old as the batch.seq_lens beside
        # it. For paths other than `observed` that age is unknown, so fewer of their sums are called
        # stale than of the same observed sums.
        known = true.known & (left > 0) & (left < column(table.size_before)[row])
        return TrueSum(true.value, known)
    return true
