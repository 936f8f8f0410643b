"""The quantities that are compared.

This module does not import torch, because `--help` lists them.
"""

from __future__ import annotations

from enum import Enum


class Quantity(str, Enum):
    """Named as in sglang. The values are the names used in reports and by `--quantity`."""

    KV_COMMITTED_LEN = "kv_committed_len"
    KV_COMMITTED_LEN_SETTLED = "kv_committed_len_settled"
    KV_ALLOCATED_LEN = "kv_allocated_len"
    SEQ_LENS_SUM = "seq_lens_sum"
    ROUTED_EXPERTS = "routed_experts"
    INDEXER_TOPK = "indexer_topk"
    SPEC_VERIFY_CT = "spec_verify_ct"
    SPEC_ACCEPTED_DRAFTS = "spec_accepted_drafts"
    SPEC_HISTOGRAM = "spec_histogram"
    FINISH = "finish"
    RELEASED_LEN = "released_len"
    SESSION_COMMITTED = "session_committed"


# The parts of a value, for quantities whose values have more than one.
PARTS: dict[Quantity, tuple[str, ...]] = {
    Quantity.ROUTED_EXPERTS: ("collected", "start", "end"),
    Quantity.INDEXER_TOPK: ("collected", "start", "end"),
    Quantity.SPEC_HISTOGRAM: ("steps", "drafts"),  # sum(hist), sum(i * hist[i])
    Quantity.FINISH: ("finished", "reason", "finished_len"),
}
