"""#24851: collect routed experts only on request, and from the client's start_len on.

Old: rows [0, seqlen - 1) are collected for every finished request. New: only if
return_routed_experts is set, and rows [min(start_len, seqlen - 1), seqlen - 1). The indexer's top-k
is not changed. Source of truth: sglang 0.5.12, maybe_collect_routed_experts and
BaseTopkCapturer.get_topk.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from .rules import FinishRows, RowRange, Rules

if TYPE_CHECKING:
    from torch import Tensor


def requested_rows(rows: FinishRows, seqlen: Tensor) -> RowRange:
    """Collect rows only on request, from start_len to the end."""
    end = (seqlen - 1).clamp(min=0)
    start = rows.start_len.minimum(end)
    nothing = ~rows.requested
    return RowRange(rows.requested, start.masked_fill(nothing, 0), end.masked_fill(nothing, 0))


def apply(rules: Rules) -> Rules:
    return dataclasses.replace(rules, expert_rows=requested_rows)
