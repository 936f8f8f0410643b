"""#23456: a stale result leaves the books of its request alone.

Old: a result that arrives for a finished or retracted request is applied like any other. New: it
adds nothing and counts nothing. A finished request gets back the slot that its last prepare
claimed; a retracted request has already been reset. Source of truth: sglang 0.5.12,
_resolve_spec_overlap_tokens.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from .rules import Rules, StaleRows

if TYPE_CHECKING:
    from torch import Tensor


def refund(rows: StaleRows) -> Tensor:
    """Give back the claimed slots of finished requests; retracted ones have no open claim."""
    claimed = rows.accepted.new_full(rows.accepted.shape, rows.claim)
    return -claimed.masked_fill(rows.retracted, 0)


def apply(rules: Rules) -> Rules:
    return dataclasses.replace(rules, stale_delta=refund, stale_counts=False)
