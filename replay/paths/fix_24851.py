"""#24851: routed experts only on request, and from the caller's start on.

Old: rows [0, seqlen - 1) are gathered for every finished request. New: only where return_routed_experts is set,
and rows [min(start_len, seqlen - 1), seqlen - 1). The indexer's top-k is not touched.
Source of truth: sglang 0.5.12, maybe_collect_routed_experts and BaseTopkCapturer.get_topk.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from .rules import FinishRows, RowRange, Rules


def requested_rows(rows: FinishRows, seqlen: Tensor) -> RowRange:
    end = torch.clamp(seqlen - 1, min=0)
    start = torch.minimum(rows.start_len, end)
    nothing = torch.zeros_like(end)
    return RowRange(
        rows.requested,
        torch.where(rows.requested, start, nothing),
        torch.where(rows.requested, end, nothing),
    )


def apply(rules: Rules) -> Rules:
    return dataclasses.replace(rules, expert_rows=requested_rows)
