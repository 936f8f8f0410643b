"""The laws `stride`, `statistics` and `batch-accepted`."""

from __future__ import annotations

import torch
from torch import Tensor

from ...recorders.schema import NONE32, NONE64, Kind
from ..columns.shared import Columns
from ..ledger import Ledger, Series
from ..quantity import PARTS, Quantity
from ..tensors import column
from .law import Places, exactly, no_places, together


def stride(columns: Columns, ledger: Ledger) -> Places:
    """A result is sliced with the width of its rows.

    The slicing uses the stride recorded on the result; up to 0.5.11 it uses the worker's.
    """
    if ledger.path != "observed":
        return no_places()
    results = columns.recording.results
    width, worker = column(columns.recording.result_width), column(results.worker_stride)
    recorded = column(results.stride)
    decode = torch.zeros(len(width), dtype=torch.bool)
    owner = column(columns.recording.owner(Kind.RESULT))
    decode[owner[column(columns.recording.result_rows.accept_len) != NONE32]] = True
    used = torch.where(recorded == NONE64, worker, recorded)
    at = torch.nonzero(decode & (used != NONE64) & (width > 0)).flatten()
    event = column(columns.recording.event_of(Kind.RESULT))[at]
    return exactly("stride", event, torch.full_like(at, -1), used[at], width[at])


def histogram(columns: Columns, ledger: Ledger) -> Places:
    """At a finish, the histogram of accepted drafts sums up to the counters of steps and drafts."""
    series, parts = ledger[Quantity.SPEC_HISTOGRAM], []
    at = torch.nonzero(series.captured).flatten()
    for part, quantity in enumerate((Quantity.SPEC_VERIFY_CT, Quantity.SPEC_ACCEPTED_DRAFTS)):
        counted, known = _counter_at_finish(columns, ledger, quantity, at)
        found = series.values[at, part][known]
        name = f"{series.quantity.value} {PARTS[series.quantity][part]}"
        event, qid = series.cells.event[at][known], series.cells.qid[at][known]
        parts.append(exactly(name, event, qid, found, counted[known]))
    return together(parts)


def batch_accepted(columns: Columns, ledger: Ledger) -> Places:
    """A batch's count of accepted drafts excludes stale results."""
    if ledger.path != "observed":
        return no_places()
    rows, results = columns.recording.result_rows, columns.recording.results
    owner = column(columns.recording.owner(Kind.RESULT))
    live = (column(rows.finished) == 0) & (column(rows.is_retracted) == 0)
    accept = column(rows.accept_len)
    drafts = torch.where(live & (accept != NONE32), accept - 1, 0)
    expected = torch.zeros(len(results.mode), dtype=torch.int64).index_add(0, owner, drafts)
    found = column(results.batch_accepted_drafts)
    at = torch.nonzero(found != NONE64).flatten()
    event = column(columns.recording.event_of(Kind.RESULT))[at]
    return exactly("batch_accepted_drafts", event, torch.full_like(at, -1), found[at], expected[at])


def _counter_at_finish(
    columns: Columns, ledger: Ledger, quantity: Quantity, at: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the request's counter at each finish, and whether it is known.

    On `observed` the finish holds it; on other paths it is the value after the last result before.
    """
    cells = ledger[Quantity.SPEC_HISTOGRAM].cells
    if ledger.path == "observed":
        counted = column(getattr(columns.recording.finishes, quantity.value))[cells.row[at]]
        return counted, (counted != NONE64) & (counted != NONE32)
    return _last_before(columns, ledger[quantity], cells.qid[at], cells.event[at])


def _last_before(
    columns: Columns, series: Series, qid: Tensor, event: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the counter after the request's last result before each event, and whether it is known.

    A request that ends with its first token has no counter yet, so the histogram is not checked.
    """
    size = len(columns.recording.events.kind) + 1
    key = series.cells.qid * size + series.cells.event
    order = torch.argsort(key)
    if not len(order):
        return torch.zeros_like(qid), torch.zeros_like(qid, dtype=torch.bool)
    place = order[(torch.searchsorted(key[order], qid * size + event) - 1).clamp(min=0)]
    known = (series.cells.qid[place] == qid) & (series.cells.event[place] < event)
    breaks = column(columns.recording.breaks)
    since = torch.searchsorted(breaks, series.cells.event[place])
    same = since == torch.searchsorted(breaks, event)
    return series.values[place, 0], known & same & series.captured[place]
