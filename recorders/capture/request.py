"""What is written down about a request when it is first seen; never a prompt token, never a stop string."""

from __future__ import annotations

from typing import Any


def describe(req: Any) -> dict[str, Any]:
    """The columns of `schema.Requests`, the rid, and what can stop the request."""
    params = getattr(req, "sampling_params", None)
    return {
        "rid": str(req.rid),
        "session_id": _text(_session_id(req)),
        "origin_len": len(req.origin_input_ids),
        "max_new_tokens": _int(getattr(params, "max_new_tokens", None)),
        "ignore_eos": int(bool(getattr(params, "ignore_eos", False))),
        "has_grammar": int(_has_grammar(req, params)),
        "return_routed_experts": int(bool(getattr(req, "return_routed_experts", False))),
        "start_len": _int(getattr(req, "routed_experts_start_len", None)),
        "vocab_size": _int(getattr(req, "vocab_size", None)),
        "input_embeds": getattr(req, "input_embeds", None) is not None,
        "stop": {
            "token_ids": _ints(getattr(params, "stop_token_ids", None)),
            "eos_token_ids": _ints(getattr(req, "eos_token_ids", None)),
            "tokenizer_token_ids": _of_tokenizer(getattr(req, "tokenizer", None)),
            "num_strings": _count(getattr(params, "stop_strs", None)),
            "num_regexes": _count(getattr(params, "stop_regex_strs", None)),
        },
    }


def _session_id(req: Any) -> Any:
    """Of the session whose turn it is; `req.session_id` names one of the radix cache's own (from 0.5.15)."""
    session = getattr(req, "session", None)
    return getattr(req if session is None else session, "session_id", None)


def _of_tokenizer(tokenizer: Any) -> list[int]:
    own = getattr(tokenizer, "eos_token_id", None)
    return _ints([*([] if own is None else [own]), *_more(tokenizer)])


def _more(tokenizer: Any) -> Any:
    return getattr(tokenizer, "additional_stop_token_ids", None) or ()


def _has_grammar(req: Any, params: Any) -> bool:
    """The compiled grammar may still be on its way when the request arrives: its specification counts too."""
    wanted = ("json_schema", "regex", "ebnf", "structural_tag")
    return getattr(req, "grammar", None) is not None or any(
        getattr(params, name, None) is not None for name in wanted
    )


def _int(value: Any) -> int | None:
    return int(value) if isinstance(value, int) else None


def _ints(values: Any) -> list[int]:
    return sorted(int(value) for value in values or ())


def _count(values: Any) -> int:
    return 1 if isinstance(values, str) else len(values or ())


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
