"""Convert responses of sglang's OpenAI endpoints to the form of /generate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .facts import Fact

_SHARED = "several choices share one id, and usage is summed over them"
_LAST = "this endpoint returns only the last one"
_ECHO = "this endpoint may put the prompt's log probabilities before them"


def as_generate(raw: Mapping[str, Any]) -> tuple[dict[str, Any], dict[Fact, str]]:
    """Convert a completion or chat completion with `choices`.

    Return `{"output_ids", "meta_info"}`, and the facts that such a response lacks, each with
    the reason. A choice with its own `meta_info` (chat with `return_meta_info`) lacks none.
    """
    choices = [one if isinstance(one, Mapping) else {} for one in raw["choices"]]
    rid, choice = raw.get("id"), choices[0]
    if len(choices) > 1:
        finished = {"type": "other"} if choice.get("finish_reason") else None
        return {"meta_info": {"id": rid, "finish_reason": finished}}, dict.fromkeys(Fact, _SHARED)
    ext, usage = _part(raw, "sglext"), _part(raw, "usage")
    ids = choice.get("token_ids") or _first(ext.get("output_ids"))
    if isinstance(choice.get("meta_info"), Mapping):
        return {"output_ids": ids, "meta_info": {**choice["meta_info"], "id": rid}}, {}
    meta = {
        "id": rid,
        "finish_reason": _reason(choice),
        "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
        "reasoning_tokens": usage.get("reasoning_tokens"),
        "cached_tokens": _part(usage, "prompt_tokens_details").get("cached_tokens"),
        "weight_versions": _part(raw, "metadata").get("weight_versions"),
        "routed_experts": ext.get("routed_experts"),
        **_spec(ext.get("spec_tokens_details")),
    }
    why_not = {} if choice.get("hidden_states") is None else {Fact.HIDDEN_STATES: _LAST}
    logprobs = _part(choice, "logprobs")
    if isinstance(logprobs.get("content"), list):  # chat
        meta["output_token_logprobs"] = logprobs["content"]
    elif logprobs:
        why_not[Fact.LOGPROBS] = _ECHO
    return {"output_ids": ids, "meta_info": meta}, why_not


def _part(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = raw.get(name)
    return found if isinstance(found, Mapping) else {}


def _first(lists: Any) -> Any:
    """Return the entry of the only choice.

    A value that is not a list is returned unchanged: the check of the ids refuses it later.
    """
    return next(iter(lists), None) if isinstance(lists, list) else lists


def _reason(choice: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the finish reason in the form of /generate. Tool calls count as a stop."""
    kind = choice.get("finish_reason")
    if kind is None:
        return None
    return {
        "type": "stop" if kind == "tool_calls" else kind,
        "matched": choice.get("matched_stop"),
    }


def _spec(details: Any) -> Mapping[str, Any]:
    """Return the speculation counters of a single choice.

    If there was no verify, they are zeros here; /generate leaves them out, and so does this.
    """
    if isinstance(details, list) and len(details) == 1:
        details = details[0]
    told = isinstance(details, Mapping) and details.get("spec_verify_ct")
    return details if told else {}
