"""The facts about a request that are both in its response and in the recording."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...recorders.schema import Reason


class Fact(str, Enum):
    """One fact, named as in reports and JSON. The order is that of the reports."""

    FINISH_REASON = "finish_reason"
    PROMPT_TOKENS = "prompt_tokens"
    COMPLETION_TOKENS = "completion_tokens"
    OUTPUT_IDS = "output_ids"  # how many there are
    TOKEN_IDS = "token_ids"  # the ids themselves
    CACHED_TOKENS = "cached_tokens"
    REASONING_TOKENS = "reasoning_tokens"
    SPEC_VERIFY_CT = "spec_verify_ct"
    SPEC_ACCEPTED_DRAFTS = "spec_accepted_drafts"
    HISTOGRAM_STEPS = "histogram_steps"  # sum(hist)
    HISTOGRAM_DRAFTS = "histogram_drafts"  # sum(i * hist[i])
    RETRACTIONS = "retractions"
    WEIGHT_VERSIONS = "weight_versions"  # which weights made which tokens
    LOGPROBS = "logprobs"  # how many there are
    HIDDEN_STATES = "hidden_states"  # how many there are
    EXPERTS_ROWS = "routed_experts_rows"  # how many there are
    EXPERTS = "routed_experts"  # the values in the rows
    INDEXER_ROWS = "indexer_topk_rows"
    INDEXER = "indexer_topk"
    TRAINER = (
        "trainer"  # rows + start_len + 1 = prompt tokens + returned tokens, as in the response
    )


REASON_WORDS = {
    Reason.STOP_TOKEN: "stop token",
    Reason.STOP_STRING: "stop string",
    Reason.LENGTH: "length",
    Reason.ABORT: "abort",
}


def format_spans(spans: Iterable[tuple[str, int, int]]) -> str:
    """Format which weights made which output tokens, as "VERSION [start, end), ..."."""
    return ", ".join(f"{version} [{start}, {end})" for version, start, end in spans)


Ints = NDArray[np.int64]
FactValue = int | str | Ints


@dataclass(slots=True)
class Side:
    """What one side knows of a request: for each fact a value, or the reason why there is none."""

    values: dict[Fact, FactValue] = field(default_factory=dict)
    why_not: dict[Fact, str] = field(default_factory=dict)

    def put(self, fact: Fact, value: FactValue | None, why_not: str) -> None:
        """Set a value, or `why_not` as the reason if the value is None."""
        if value is None:
            self.why_not[fact] = why_not
        else:
            self.values[fact] = value

    def put_all(self, values: Mapping[Fact, Any], why_not: str) -> None:
        for fact, value in values.items():
            self.put(fact, value, why_not)
