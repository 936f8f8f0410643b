"""From a recording and a set of rules to a ledger."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from ...recorders.recording import Recording
from ...recorders.schema import NONE64, Kind
from ..cells import Cells, Moment, cells_of
from ..ledger import Ledger, Series
from ..paths.rules import FinishRows, RowRange, Rules
from ..quantity import Quantity
from ..tensors import column
from .commits import Commits, Counters, commits, counters
from .lengths import lengths_of
from .sums import Sums, sums, true_sums
from .touches import Touches, touches_of


class Columns:
    """What every path over one recording shares: cells, touches, true lengths. Computed once, on demand."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording

    @cached_property
    def cells(self) -> dict[Quantity, Cells]:
        return {quantity: cells_of(self.recording, quantity) for quantity in Quantity}

    @cached_property
    def touches(self) -> Touches:
        return touches_of(self.recording)

    @cached_property
    def true_sums(self) -> Sums:
        return true_sums(self.recording, lengths_of(self.recording))

    def touch_of(self, cells: Cells) -> Tensor:
        """Per cell of a committed length or counter: the touch that made it (-1: none)."""
        index = torch.full_like(cells.event, -1)
        tables = (
            (Kind.PREPARE, self.recording.prepare_rows),
            (Kind.RESULT, self.recording.result_rows),
        )
        for kind, table in tables:
            mine = cells.kind == kind
            index[mine] = self.touches.at(kind, len(table.qid))[cells.row[mine]]
        finish = cells.kind == Kind.FINISH
        index[finish] = self.touches.last_before(cells.qid[finish], cells.event[finish])
        return index


def ledger(columns: Columns, rules: Rules, path: str) -> Ledger:
    """The books these rules compute over this recording."""
    made = commits(columns.recording, columns.touches, rules)
    counted = counters(columns.recording, columns.touches, rules)
    held = sums(columns.recording, columns.true_sums, rules)
    finishes = finish_rows(columns.recording)
    series = (
        _committed(columns, Quantity.KV_COMMITTED_LEN, made, settled=False),
        _committed(columns, Quantity.KV_COMMITTED_LEN_SETTLED, made, settled=True),
        _sums(columns, held),
        _experts(columns, rules.expert_rows(finishes, rules.seqlen(finishes))),
        _indexer(columns, rules.seqlen(finishes)),
        _counted(columns, Quantity.SPEC_VERIFY_CT, counted.verify_ct, counted),
        _counted(columns, Quantity.SPEC_ACCEPTED_DRAFTS, counted.accepted_drafts, counted),
    )
    return Ledger(path, series)


def finish_rows(recording: Recording) -> FinishRows:
    finishes = recording.finishes
    output_len, finished_len = column(finishes.output_len), column(finishes.finished_len)
    start_len = column(finishes.start_len)
    return FinishRows(
        origin_len=column(finishes.origin_len),
        output_len=output_len,
        finished_len=torch.where(finished_len == NONE64, output_len, finished_len),
        requested=column(finishes.return_routed_experts) == 1,
        start_len=torch.where(start_len == NONE64, 0, start_len),
    )


def _committed(columns: Columns, quantity: Quantity, made: Commits, *, settled: bool) -> Series:
    cells = columns.cells[quantity]
    touch = columns.touch_of(cells)
    at = touch.clamp(min=0)
    before = (cells.moment == Moment.BEFORE) & (cells.kind != Kind.FINISH)
    if not len(made.after):
        return Series(quantity, cells, torch.zeros(len(cells), 1, dtype=torch.int64), touch >= 0)
    value = torch.where(before, made.before[at], made.after[at])
    if settled:
        value = value - torch.where(before, made.claims_before[at], made.claims_after[at])
    return Series(quantity, cells, value[:, None], (touch >= 0) & columns.touches.seeded[at])


def _counted(columns: Columns, quantity: Quantity, values: Tensor, counted: Counters) -> Series:
    cells = columns.cells[quantity]
    touch = columns.touch_of(cells)
    return Series(quantity, cells, values[touch][:, None], counted.known[touch])


def _sums(columns: Columns, held: Sums) -> Series:
    cells = columns.cells[Quantity.SEQ_LENS_SUM]
    value, known = torch.from_numpy(held.value), torch.from_numpy(held.known)
    return Series(Quantity.SEQ_LENS_SUM, cells, value[cells.event][:, None], known[cells.event])


def _experts(columns: Columns, rows: RowRange) -> Series:
    return _rows(columns, Quantity.ROUTED_EXPERTS, rows, columns.recording.finishes.experts_state)


def _indexer(columns: Columns, seqlen: Tensor) -> Series:
    rows = RowRange(
        torch.ones_like(seqlen).bool(), torch.zeros_like(seqlen), torch.clamp(seqlen - 1, min=0)
    )
    return _rows(columns, Quantity.INDEXER_TOPK, rows, columns.recording.finishes.indexer_state)


def _rows(columns: Columns, quantity: Quantity, rows: RowRange, state: object) -> Series:
    """A server without a capturer collects nothing on any path: not captured, never 0 rows."""
    cells = columns.cells[quantity]
    values = torch.stack([rows.collected.to(torch.int64), rows.start, rows.end], dim=1)
    captured = column(state) != NONE64  # type: ignore[arg-type]
    return Series(quantity, cells, values[cells.row], captured[cells.row])
