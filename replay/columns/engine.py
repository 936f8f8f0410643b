"""Compute a ledger from a recording and a set of rules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from ...recorders.schema import NONE64, Kind
from ..cells import Cells, Moment
from ..handovers import require_handovers
from ..ledger import Ledger, Series, nothing
from ..paths.rules import RowRange, Rules
from ..quantity import Quantity
from ..tensors import column
from .committed_len import CommittedByTouch, Counters, claims, committed_by_touch, counters
from .shared import Columns
from .sums import Sums, sums

# The rule slots that each quantity depends on. Only these are passed on, so hidden dependencies are
# impossible.
_SLOTS: dict[Quantity, tuple[str, ...]] = {
    Quantity.KV_COMMITTED_LEN: ("claim", "stale_delta"),
    Quantity.KV_COMMITTED_LEN_SETTLED: ("claim", "stale_delta"),
    Quantity.SEQ_LENS_SUM: ("lazy_sums",),
    Quantity.ROUTED_EXPERTS: ("seqlen", "expert_rows"),
    Quantity.INDEXER_TOPK: ("seqlen",),
    Quantity.SPEC_VERIFY_CT: ("stale_counts",),
    Quantity.SPEC_ACCEPTED_DRAFTS: ("stale_counts",),
}


RULED = frozenset(_SLOTS)  # the quantities that the rules compute
_NO_RULE = (
    "the built-in rules of the five fixes do not compute it; compare with a lifted path instead"
)


def ledger(
    columns: Columns, rules: Rules, path: str, quantities: Iterable[Quantity] = Quantity
) -> Ledger:
    """Compute the books of these rules over this recording.

    Quantities without a rule are not captured.

    Raises NoVerdictError if the recording does not say where its requests begin.
    """
    require_handovers(columns.recording)
    reasons = {quantity: _NO_RULE for quantity in Quantity if quantity not in RULED}
    series = tuple(_series(columns, quantity, rules) for quantity in quantities)
    return Ledger(path, series, reasons)


def _series(columns: Columns, quantity: Quantity, rules: Rules) -> Series:
    """Compute one quantity, or reuse the series of other rules that agree in its slots."""
    if quantity not in RULED:
        return nothing(quantity, columns.cells[quantity])
    part = Rules(**{slot: getattr(rules, slot) for slot in _SLOTS[quantity]})
    return columns.once((quantity, part), lambda: _compute(columns, quantity, part))


def _compute(columns: Columns, quantity: Quantity, rules: Rules) -> Series:
    recording, touches = columns.recording, columns.touches
    if quantity is Quantity.KV_COMMITTED_LEN:
        return _committed(columns, committed_by_touch(recording, touches, rules))
    if quantity is Quantity.KV_COMMITTED_LEN_SETTLED:
        return _settled(columns, rules)
    if quantity is Quantity.SEQ_LENS_SUM:
        return _sums(columns, sums(recording, columns.true_sums, rules))
    if quantity is Quantity.ROUTED_EXPERTS:
        rows = columns.finish_rows
        return _experts(columns, rules.expert_rows(rows, rules.seqlen(rows)))
    if quantity is Quantity.INDEXER_TOPK:
        return _indexer(columns, rules.seqlen(columns.finish_rows))
    counted = columns.once(("counters", rules), lambda: counters(recording, touches, rules))
    return _counted(columns, quantity, counted)


def _committed(columns: Columns, made: CommittedByTouch) -> Series:
    quantity = Quantity.KV_COMMITTED_LEN
    cells, touch = columns.cells[quantity], columns.touch_of(quantity)
    if not len(made.after):
        return Series(quantity, cells, torch.zeros(len(cells), 1, dtype=torch.int64), touch >= 0)
    at = touch.clamp(min=0)
    value = torch.where(_before(cells), made.before[at], made.after[at])
    return Series(quantity, cells, value[:, None], (touch >= 0) & columns.touches.seeded[at])


def _settled(columns: Columns, rules: Rules) -> Series:
    """Subtract the claims that these rules' prepares opened from these rules' raw length."""
    raw = _series(columns, Quantity.KV_COMMITTED_LEN, rules)
    quantity = Quantity.KV_COMMITTED_LEN_SETTLED
    before, after = claims(columns.recording, columns.touches, rules)
    if not len(after):
        return replace(raw, quantity=quantity)
    at = columns.touch_of(quantity).clamp(min=0)
    claimed = torch.where(_before(raw.cells), before[at], after[at])
    return replace(raw, quantity=quantity, values=raw.values - claimed[:, None])


def _before(cells: Cells) -> Tensor:
    """Mark the committed lengths (bool) to be read before their touch.

    Cells of a finish are not marked, because a finish comes after the request's last touch.
    """
    return (cells.moment == Moment.BEFORE) & (cells.kind != Kind.FINISH)


def _counted(columns: Columns, quantity: Quantity, counted: Counters) -> Series:
    verify = quantity is Quantity.SPEC_VERIFY_CT
    values = counted.verify_ct if verify else counted.accepted_drafts
    cells = columns.cells[quantity]
    touch = columns.touch_of(quantity)
    if not len(values):
        return nothing(quantity, cells)
    at = touch.clamp(min=0)
    return Series(quantity, cells, values[at][:, None], counted.known[at] & (touch >= 0))


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
    """Build a series of row spans.

    A server without a capturer collects nothing: not captured on any path, never 0 rows.
    """
    cells = columns.cells[quantity]
    values = torch.stack([rows.collected.to(torch.int64), rows.start, rows.end], dim=1)
    captured = column(state) != NONE64  # type: ignore[arg-type]
    return Series(quantity, cells, values[cells.row], captured[cells.row])
