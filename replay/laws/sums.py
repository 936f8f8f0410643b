"""Law K: a batch's seq_lens_sum is the sum of its seq_lens, or None."""

from __future__ import annotations

import torch
from torch import Tensor

from ...recorders.schema import NONE64, Kind, Mode
from ..columns.shared import Columns
from ..columns.sums import tails_of_launches
from ..ledger import Ledger, Series
from ..quantity import Quantity
from ..tensors import column
from .law import Places, exactly, together


def sums(columns: Columns, ledger: Ledger) -> Places:
    """None claims nothing. The server's own sums are held against its own `batch.seq_lens` where that was recorded;
    everything else against the lengths that follow from the accepted tokens."""
    series = ledger[Quantity.SEQ_LENS_SUM]
    says = series.captured & (series.values[:, 0] != NONE64)
    parts = []
    for kind in (Kind.FILTER, Kind.MERGE, Kind.LAUNCH):
        at = torch.nonzero(says & (series.cells.kind == kind)).flatten()
        truth, known = _truth(columns, ledger, series, kind, at)
        at, truth = at[known], truth[known]
        cells = series.cells
        parts.append(exactly(cells.event[at], cells.qid[at], series.values[at, 0], truth))
    return together(parts)


def _truth(
    columns: Columns, ledger: Ledger, series: Series, kind: Kind, at: Tensor
) -> tuple[Tensor, Tensor]:
    event, row = series.cells.event[at], series.cells.row[at]
    true = columns.true_sums
    value, known = torch.from_numpy(true.value)[event], torch.from_numpy(true.known)[event]
    if kind is Kind.LAUNCH:
        # Beside a chunk a request that decodes is counted with the token that it is about to write.
        mixed = column(columns.recording.launches.mode)[row] == Mode.MIXED
        about = torch.from_numpy(tails_of_launches(columns.recording))[row]
        # Without overlap run_batch itself moves the lengths, before the sum is seen.
        seen = known & columns.recording.run.overlap
        return value + torch.where(mixed, about, 0), seen
    table = columns.recording.event_table(kind)
    device = column(table.device_sum)[row]
    left = column(table.num_rows)[row]
    if ledger.path == "observed":
        # A batch that has emptied keeps the sum of before, and nobody is in it to be summed.
        has = (device != NONE64) & (left > 0)
        return torch.where(has, device, value), (known | has) & (left > 0)
    if kind is Kind.FILTER:
        # From 0.5.13 on an early return keeps a sum that is as old as the batch.seq_lens beside it.
        known = known & (left > 0) & (left < column(table.size_before)[row])
    return value, known
