"""#26126: rows end at the stop.

Old: the raw length decides how many rows are returned, so tokens generated after the stop add rows.
New: the length is len(origin_input_ids) + len(output_ids_through_stop), for routed experts and the
indexer's top-k. Source of truth: sglang 0.5.13, _maybe_collect_routed_experts and
_maybe_collect_indexer_topk.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from .rules import FinishRows, Rules

if TYPE_CHECKING:
    from torch import Tensor


def stop_aware_seqlen(rows: FinishRows) -> Tensor:
    """Return the length through the stop."""
    return rows.origin_len + rows.output_len.minimum(rows.finished_len)


def apply(rules: Rules) -> Rules:
    return dataclasses.replace(rules, seqlen=stop_aware_seqlen)
