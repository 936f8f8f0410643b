"""#23456: a stale result leaves the books of its request alone.

Old: a result that arrives for a finished or retracted request is applied like any other. New: it adds nothing and
counts nothing; a finished request gets the slot back that its last prepare claimed, a retracted one has been reset.
Source of truth: sglang 0.5.12, _resolve_spec_overlap_tokens.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from .rules import Rules, StaleRows


def refund(rows: StaleRows) -> Tensor:
    nothing = torch.zeros_like(rows.accepted)
    return torch.where(rows.retracted, nothing, nothing - rows.claim)


def apply(rules: Rules) -> Rules:
    return dataclasses.replace(rules, stale_delta=refund, stale_counts=False)
