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

    The server's own sums are compared with its own `batch.seq_lens` if that was recorded (it is on a
    CPU). All other sums are compared with the lengths that follow from the accepted tokens.
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
    """Return the true sums after a filter or a merge.

    From 0.5.13 on, a filter that returns early keeps a sum that is as old as the batch.seq_lens
    beside it. Only the server's own lengths tell how old that is. They are unknown for a server
    with a GPU, where they are not read, and for paths other than `observed`. There, such a sum is
    neither true nor stale. Up to 0.5.12.post1, batch.seq_lens is never old at a filter; these
    servers have no `needs_cpu_seq_lens`.
    """
    table, run = columns.recording.event_table(kind), columns.recording.run
    device, left = column(table.device_sum)[row], column(table.num_rows)[row]
    known = true.known
    if kind is Kind.FILTER and not (observed and run.needs_cpu_seq_lens is None):
        known = known & (left > 0) & (left < column(table.size_before)[row])
    if not observed:
        return TrueSum(true.value, known)
    # A batch that has become empty keeps its previous sum, and there is no request left to sum over.
    has = device != NONE64
    return TrueSum(torch.where(has, device, true.value), (known | has) & (left > 0))
