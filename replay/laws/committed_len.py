"""The laws `commit`, `allocation` and `stale`."""

from __future__ import annotations

import torch
from torch import Tensor

from ...recorders.recording import Recording
from ...recorders.schema import NONE64, Kind
from ..cells import Cells, Moment
from ..columns.shared import Columns
from ..decisions import GOES_ON, decisions
from ..ledger import Ledger, Series
from ..quantity import Quantity
from ..tails import tails
from ..tensors import column, nullable
from .law import Places, exactly, together, within


def commit(columns: Columns, ledger: Ledger) -> Places:
    """After each live result: settled length = prompt + outputs - 1.

    The outputs are those after this result, overshoot included. If a tail ends its request, one
    token less may be committed than was written: its slot is freed, not cached.
    """
    recording, rows = columns.recording, columns.recording.result_rows
    series = ledger[Quantity.KV_COMMITTED_LEN_SETTLED]
    cells = series.cells
    origin = column(recording.requests.origin_len)
    at = torch.nonzero(_results(series, Moment.AFTER) & ~_stale(recording, cells)).flatten()
    row, qid = cells.row[at], cells.qid[at]
    tail = torch.from_numpy(tails(recording).answered)
    emitted = torch.where(tail, 1, column(rows.num_emitted))
    expected = origin[qid] + column(rows.output_len)[row] + emitted[row] - 1
    slack = (tail & _ends(recording))[row].to(torch.int64)
    low, name = expected - slack, series.quantity.value
    return within(name, cells.event[at], qid, series.values[at, 0], low, expected)


def _ends(recording: Recording) -> Tensor:
    """Return a mask of the result rows that may have ended their request."""
    decided, mask = decisions(recording), torch.zeros(len(recording.result_rows.qid)).bool()
    mask[column(decided.row[decided.finish != GOES_ON])] = True
    return mask


def stale(columns: Columns, ledger: Ledger) -> Places:
    """A stale result does not change the settled length or the counters."""
    parts = [_unchanged_length(columns, ledger)]
    for quantity in (Quantity.SPEC_VERIFY_CT, Quantity.SPEC_ACCEPTED_DRAFTS):
        parts.append(_unchanged_counter(columns, ledger, quantity))
    return together(parts)


def allocation(columns: Columns, ledger: Ledger) -> Places:
    """0 <= committed <= allocated after a prepare and at a finish, and a prepare frees no slot."""
    committed, allocated = ledger[Quantity.KV_COMMITTED_LEN], ledger[Quantity.KV_ALLOCATED_LEN]
    parts = [_only_grows(allocated)]
    for kind, moment in ((Kind.PREPARE, Moment.AFTER), (Kind.FINISH, Moment.BEFORE)):
        low, high = _at(committed, kind, moment), _at(allocated, kind, moment)
        known = committed.captured[low] & allocated.captured[high]
        low, high = low[known], high[known]
        cells, limit = committed.cells, allocated.values[high, 0]
        event, qid, found = cells.event[low], cells.qid[low], committed.values[low, 0]
        parts.append(
            within(committed.quantity.value, event, qid, found, torch.zeros_like(found), limit)
        )
    return together(parts)


def _only_grows(allocated: Series) -> Places:
    """A prepare never lowers the allocated length.

    Otherwise it would ask the allocator for a negative number of slots (#23336).
    """
    before = _at(allocated, Kind.PREPARE, Moment.BEFORE)
    after = _at(allocated, Kind.PREPARE, Moment.AFTER)
    known = allocated.captured[before] & allocated.captured[after]
    before, after = before[known], after[known]
    cells, found = allocated.cells, allocated.values[after, 0]
    high = torch.full_like(found, torch.iinfo(torch.int64).max)
    event, qid, low = cells.event[after], cells.qid[after], allocated.values[before, 0]
    return within(allocated.quantity.value, event, qid, found, low, high)


def _unchanged_length(columns: Columns, ledger: Ledger) -> Places:
    """Compare the settled length after each stale result with the one before it."""
    series = ledger[Quantity.KV_COMMITTED_LEN_SETTLED]
    cells = series.cells
    after = _at(series, Kind.RESULT, Moment.AFTER)
    before = _at(series, Kind.RESULT, Moment.BEFORE)
    is_stale = _stale(columns.recording, cells)[after]
    known = series.captured[after] & series.captured[before] & is_stale
    after, before = after[known], before[known]
    found, expected = series.values[after, 0], series.values[before, 0]
    return exactly(series.quantity.value, cells.event[after], cells.qid[after], found, expected)


def _unchanged_counter(columns: Columns, ledger: Ledger, quantity: Quantity) -> Places:
    """Compare the counter after a stale result with its previous value.

    That is the value after the request's previous result, or else the value after its prefill.
    """
    recording, series = columns.recording, ledger[quantity]
    cells = series.cells
    qid, event, value = (_prefilled if ledger.path == "observed" else _fresh)(recording, series)
    none = torch.zeros_like(qid, dtype=torch.bool)
    known = torch.cat([series.captured, ~none])
    is_stale = torch.cat([_stale(recording, cells), none])
    qid, event = torch.cat([cells.qid, qid]), torch.cat([cells.event, event])
    value = torch.cat([series.values[:, 0], value])
    order = torch.argsort(qid * (len(recording.events.kind) + 1) + event)
    this, last = order[1:], order[:-1]
    held = (qid[this] == qid[last]) & known[this] & known[last] & is_stale[this]
    held &= _no_gap_between(recording, event[last], event[this])
    this, last = this[held], last[held]
    return exactly(quantity.value, event[this], qid[this], value[this], value[last])


def _prefilled(recording: Recording, series: Series) -> tuple[Tensor, Tensor, Tensor]:
    """Return request, event and recorded counter of the results that resolve no verify."""
    rows = recording.result_rows
    value = nullable(getattr(rows, series.quantity.value))
    mine = value != NONE64
    mine[series.cells.row] = False
    event = column(recording.event_of(Kind.RESULT))[column(recording.owner(Kind.RESULT))]
    return column(rows.qid)[mine], event[mine], value[mine]


def _fresh(recording: Recording, _: Series) -> tuple[Tensor, Tensor, Tensor]:
    """Return request, event and counter (0) of the extends before any verify.

    Every path's counters start at 0 there.
    """
    rows = recording.extend_rows
    mine = column(rows.output_len) <= recording.outputs_before_verify
    event = column(recording.event_of(Kind.EXTEND))[column(recording.owner(Kind.EXTEND))]
    return column(rows.qid)[mine], event[mine], torch.zeros_like(event[mine])


def _results(series: Series, moment: Moment) -> Tensor:
    cells = series.cells
    return series.captured & (cells.kind == Kind.RESULT) & (cells.moment == moment)


def _stale(recording: Recording, cells: Cells) -> Tensor:
    """Return a mask of the cells whose result found its request finished or retracted."""
    rows = recording.result_rows
    late = (column(rows.finished) == 1) | (column(rows.is_retracted) == 1)
    mask = torch.zeros(len(cells), dtype=torch.bool)
    mine = cells.kind == Kind.RESULT
    mask[mine] = late[cells.row[mine]]
    return mask


def _at(series: Series, kind: Kind, moment: Moment) -> Tensor:
    """Return the indices of the cells of one kind and moment, ordered by row.

    The rows are the same for every quantity, so the results for two quantities line up.
    """
    cells = series.cells
    found = torch.nonzero((cells.kind == kind) & (cells.moment == moment)).flatten()
    return found[torch.argsort(cells.row[found])]


def _no_gap_between(recording: Recording, first: Tensor, second: Tensor) -> Tensor:
    breaks = column(recording.breaks)
    return torch.searchsorted(breaks, first) == torch.searchsorted(breaks, second)
