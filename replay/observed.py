"""The `observed` path: what the live server itself computed, read back from the recording."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from ..recorders.recording import Recording
from ..recorders.schema import NONE64, Kind
from .cells import Cells, Moment
from .columns.committed_len import open_claims
from .columns.shared import Columns
from .columns.touches import running
from .decisions import LOST, decisions
from .ledger import Ledger, Series
from .quantity import Quantity
from .tensors import column, nullable

_LEFT_OUT = "some requests are not in this recording, so the server's sums are not the sums of the recorded batches"


def observed(columns: Columns, wanted: Collection[Quantity] = tuple(Quantity)) -> Ledger:
    """Read the server's books for the `wanted` quantities. Each quantity is read independently."""
    series = tuple(read(columns) for quantity, read in _READ.items() if quantity in wanted)
    reasons = {} if columns.recording.has_every_request else {Quantity.SEQ_LENS_SUM: _LEFT_OUT}
    return Ledger("observed", series, reasons)


def _committed(columns: Columns) -> Series:
    """Read the committed lengths."""
    recording, cells = columns.recording, columns.cells[Quantity.KV_COMMITTED_LEN]
    places: tuple[tuple[Kind, Moment, Tensor], ...] = (
        (Kind.PREPARE, Moment.BEFORE, nullable(recording.prepare_rows.committed_before)),
        (Kind.PREPARE, Moment.AFTER, nullable(recording.prepare_rows.committed_after)),
        (Kind.RESULT, Moment.BEFORE, nullable(recording.result_rows.committed_before)),
        (Kind.RESULT, Moment.AFTER, nullable(recording.result_rows.committed_after)),
        (Kind.FINISH, Moment.BEFORE, nullable(recording.finishes.committed)),
    )
    return _unseeded(columns, _read(Quantity.KV_COMMITTED_LEN, cells, places))


def _unseeded(columns: Columns, series: Series) -> Series:
    """Mark the prepare after a seed as not captured: the server did not yet have the value that the seed assumes."""
    cells, touches = series.cells, columns.touches
    after_seed = torch.zeros_like(touches.seeded)
    after_seed[1:] = touches.kind[:-1] == Kind.SEED
    at = touches.row[after_seed & (touches.kind == Kind.PREPARE)]
    seeded = torch.zeros(len(columns.recording.prepare_rows.qid), dtype=torch.bool)
    seeded[at] = True
    mine = cells.kind == Kind.PREPARE
    captured = series.captured.clone()
    captured[mine] &= ~seeded[cells.row[mine]]
    return replace(series, captured=captured)


def _allocated(columns: Columns) -> Series:
    recording, cells = columns.recording, columns.cells[Quantity.KV_ALLOCATED_LEN]
    places = (
        (Kind.PREPARE, Moment.BEFORE, nullable(recording.prepare_rows.allocated_before)),
        (Kind.PREPARE, Moment.AFTER, nullable(recording.prepare_rows.allocated_after)),
        (Kind.FINISH, Moment.BEFORE, nullable(recording.finishes.allocated)),
        (Kind.RELEASE, Moment.BEFORE, nullable(recording.releases.allocated)),
    )
    return _read(Quantity.KV_ALLOCATED_LEN, cells, places)


def _released(columns: Columns) -> Series:
    """Read the released lengths."""
    cells = columns.cells[Quantity.RELEASED_LEN]
    lengths = nullable(columns.recording.releases.released_len)[cells.row]
    hooked = any(
        site.name == "commit-length" and site.attached for site in columns.recording.run.sites
    )
    # If the site was attached, None is a state that the server had.
    captured = torch.full_like(cells.event, hooked, dtype=torch.bool)
    return Series(Quantity.RELEASED_LEN, cells, lengths[:, None], captured)


def _inherited(columns: Columns) -> Series:
    """Read what sessions keep and what turns inherit."""
    recording, cells = columns.recording, columns.cells[Quantity.SESSION_COMMITTED]
    places = (
        (Kind.SESSION_SAVE, Moment.AFTER, nullable(recording.saves.committed)),
        (Kind.SESSION_RESTORE, Moment.AFTER, nullable(recording.restores.committed)),
    )
    series = _read(Quantity.SESSION_COMMITTED, cells, places)
    keeps_none = cells.kind == Kind.SESSION_SAVE  # at a save, None is a state that the server had
    return replace(series, captured=series.captured | keeps_none)


def _read(
    quantity: Quantity, cells: Cells, places: Iterable[tuple[Kind, Moment, Tensor]]
) -> Series:
    """Read columns of the recording into a series. Absent values were not captured."""
    values = torch.full_like(cells.event, NONE64)
    for kind, moment, source in places:
        mine = (cells.kind == kind) & (cells.moment == moment)
        values[mine] = source[cells.row[mine]]
    return Series(quantity, cells, values[:, None], values != NONE64)


def _histogram(columns: Columns) -> Series:
    cells, finishes = columns.cells[Quantity.SPEC_HISTOGRAM], columns.recording.finishes
    parts = [column(finishes.histogram_sum), column(finishes.histogram_weighted)]
    values = torch.stack(parts, dim=1)[cells.row]
    return Series(Quantity.SPEC_HISTOGRAM, cells, values, (values != NONE64).all(dim=1))


def _finish(columns: Columns) -> Series:
    """Read the finish decisions."""
    cells, finishes = columns.cells[Quantity.FINISH], columns.recording.finishes
    finish = column(decisions(columns.recording).finish)
    values = torch.tensor([0, NONE64, NONE64]).repeat(len(finish), 1)
    ends = torch.nonzero(finish >= 0).flatten()
    reason, length = column(finishes.reason), column(finishes.finished_len)
    values[ends] = torch.stack(
        [torch.ones_like(ends), reason[finish[ends]], length[finish[ends]]], dim=1
    )
    return Series(Quantity.FINISH, cells, values, finish != LOST)


def _settled(columns: Columns) -> Series:
    """Subtract the claims that the observed prepares opened from the observed raw length."""
    cells = columns.cells[Quantity.KV_COMMITTED_LEN_SETTLED]
    raw = _committed(columns)
    touches = columns.touches
    before, after, sure = observed_claims(columns)
    touch = columns.touch_of(Quantity.KV_COMMITTED_LEN_SETTLED)
    at = touch.clamp(min=0)
    if not len(touches.row):
        return Series(
            Quantity.KV_COMMITTED_LEN_SETTLED, cells, raw.values, torch.zeros_like(raw.captured)
        )
    is_before = (cells.moment == Moment.BEFORE) & (cells.kind != Kind.FINISH)
    claims = torch.where(is_before, before[at], after[at])
    known = raw.captured & (touch >= 0) & touches.seeded[at] & sure[at]
    return Series(Quantity.KV_COMMITTED_LEN_SETTLED, cells, raw.values - claims[:, None], known)


def observed_claims(columns: Columns) -> tuple[Tensor, Tensor, Tensor]:
    """Return the open claims before and after each touch, from the server's own prepares.

    The third tensor (bool) says where the claims are known.
    """
    touches, rows = columns.touches, columns.recording.prepare_rows
    before, after = nullable(rows.committed_before), nullable(rows.committed_after)
    absent = (before == NONE64) | (after == NONE64)
    prepares = touches.kind == Kind.PREPARE
    claimed, unknown = torch.zeros_like(touches.row), torch.zeros_like(touches.row)
    claimed[prepares] = torch.where(absent, 0, after - before)[touches.row[prepares]]
    unknown[prepares] = absent.to(torch.int64)[touches.row[prepares]]
    sure = running(touches, torch.zeros_like(unknown), unknown) == 0
    return (*open_claims(columns.recording, touches, claimed), sure)


def _sums(columns: Columns) -> Series:
    recording, cells = columns.recording, columns.cells[Quantity.SEQ_LENS_SUM]
    sources: dict[Kind, Callable[[Recording], Tensor]] = {
        Kind.FILTER: lambda r: column(r.filters.seq_lens_sum_after),
        Kind.MERGE: lambda r: column(r.merges.seq_lens_sum_after),
        Kind.LAUNCH: lambda r: column(r.launches.seq_lens_sum),
    }
    values = torch.full_like(cells.event, NONE64)
    for kind, source in sources.items():
        mine = cells.kind == kind
        values[mine] = source(recording)[cells.row[mine]]
    # None is a state that the server had. If requests are missing from a recording, its sums count
    # as not captured.
    captured = torch.full_like(values, recording.has_every_request, dtype=torch.bool)
    return Series(Quantity.SEQ_LENS_SUM, cells, values[:, None], captured)


def _rows(columns: Columns, quantity: Quantity, name: str) -> Series:
    """Read the spans of the collected rows."""
    cells, finishes = columns.cells[quantity], columns.recording.finishes
    state = column(getattr(finishes, f"{name}_state"))
    start, rows = (
        column(getattr(finishes, f"{name}_start")),
        column(getattr(finishes, f"{name}_rows")),
    )
    values = torch.stack([state, start, start + rows], dim=1)
    values[state != 1] = 0
    captured = (state == 0) | ((state == 1) & (start != NONE64) & (rows != NONE64))
    return Series(quantity, cells, values[cells.row], captured[cells.row])


def _counter(columns: Columns, quantity: Quantity) -> Series:
    cells = columns.cells[quantity]
    values = nullable(getattr(columns.recording.result_rows, quantity.value))[cells.row]
    return Series(quantity, cells, values[:, None], values != NONE64)


_READ: dict[Quantity, Callable[[Columns], Series]] = {
    Quantity.KV_COMMITTED_LEN: _committed,
    Quantity.KV_COMMITTED_LEN_SETTLED: _settled,
    Quantity.KV_ALLOCATED_LEN: _allocated,
    Quantity.SEQ_LENS_SUM: _sums,
    Quantity.ROUTED_EXPERTS: lambda columns: _rows(columns, Quantity.ROUTED_EXPERTS, "experts"),
    Quantity.INDEXER_TOPK: lambda columns: _rows(columns, Quantity.INDEXER_TOPK, "indexer"),
    Quantity.SPEC_VERIFY_CT: lambda columns: _counter(columns, Quantity.SPEC_VERIFY_CT),
    Quantity.SPEC_ACCEPTED_DRAFTS: lambda columns: _counter(columns, Quantity.SPEC_ACCEPTED_DRAFTS),
    Quantity.SPEC_HISTOGRAM: _histogram,
    Quantity.FINISH: _finish,
    Quantity.RELEASED_LEN: _released,
    Quantity.SESSION_COMMITTED: _inherited,
}
