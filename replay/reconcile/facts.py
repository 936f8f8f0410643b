"""What of a request is both told to its client and recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...recorders.schema import Reason


class Fact(str, Enum):
    """By the names that reports and JSON use; in the order in which they are told."""

    FINISH_REASON = "finish_reason"
    PROMPT_TOKENS = "prompt_tokens"
    COMPLETION_TOKENS = "completion_tokens"
    OUTPUT_IDS = "output_ids"  # how many
    TOKEN_IDS = "token_ids"  # which
    CACHED_TOKENS = "cached_tokens"
    REASONING_TOKENS = "reasoning_tokens"
    SPEC_VERIFY_CT = "spec_verify_ct"
    SPEC_ACCEPTED_DRAFTS = "spec_accepted_drafts"
    HISTOGRAM_STEPS = "histogram_steps"  # sum(hist)
    HISTOGRAM_DRAFTS = "histogram_drafts"  # sum(i * hist[i])
    RETRACTIONS = "retractions"
    WEIGHT_VERSIONS = "weight_versions"  # which weights made which tokens
    LOGPROBS = "logprobs"  # how many
    HIDDEN_STATES = "hidden_states"  # how many
    EXPERTS_ROWS = "routed_experts_rows"
    EXPERTS = "routed_experts"  # what is in the rows
    INDEXER_ROWS = "indexer_topk_rows"
    INDEXER = "indexer_topk"
    TRAINER = "trainer"  # rows + start_len + 1 = prompt tokens + returned tokens, all as told


REASON_WORDS = {
    Reason.STOP_TOKEN: "stop token",
    Reason.STOP_STRING: "stop string",
    Reason.LENGTH: "length",
    Reason.ABORT: "abort",
}


def spans_told(spans: Iterable[tuple[str, int, int]]) -> str:
    """Which weights made which output tokens, from one up to before another, in words."""
    return ", ".join(f"{version} [{start}, {end})" for version, start, end in spans)


Ints = NDArray[np.int64]
Value = int | str | Ints


@dataclass(slots=True)
class Side:
    """What one side has of a request: a value, or why there is none, fact by fact."""

    values: dict[Fact, Value] = field(default_factory=dict)
    why_not: dict[Fact, str] = field(default_factory=dict)

    def put(self, fact: Fact, value: Value | None, why_not: str) -> None:
        """`why_not`: what to say where the value is None."""
        if value is None:
            self.why_not[fact] = why_not
        else:
            self.values[fact] = value

    def put_all(self, values: Mapping[Fact, Any], why_not: str) -> None:
        for fact, value in values.items():
            self.put(fact, value, why_not)
