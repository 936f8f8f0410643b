"""Describe a request when it is first seen, without prompt tokens and without stop strings."""

from __future__ import annotations

from typing import Any, NamedTuple

_FACTS_BYTES = 1000  # memory of a request's facts without its texts and stop ids
_STOP_ID_BYTES = 100  # maximum memory of a number in a set: its share of the table, and the object
_CHAR_BYTES = 4  # maximum memory of a character


class RequestFacts(NamedTuple):
    """What is read from a request immediately, on the scheduler's thread.

    The rest of the work is done on the writer's thread. If the disk hangs, this object lives long.
    So it holds nothing that is large or keeps the request alive. It does not hold the sampling
    parameters either, because up to 0.5.22 they refer to the request.
    """

    rid: str
    session_id: str | None
    origin_len: int
    max_new_tokens: Any
    has_grammar: bool
    has_embeds: bool
    return_routed_experts: Any
    start_len: Any
    vocab_size: Any
    ignore_eos: Any
    stop_token_ids: Any
    eos_token_ids: Any
    tokenizer: Any
    num_strings: int
    num_regexes: int

    @classmethod
    def of(cls, req: Any) -> RequestFacts:
        params = getattr(req, "sampling_params", None)
        return cls(
            str(req.rid),
            _text(_session_id(req)),
            len(req.origin_input_ids),
            getattr(params, "max_new_tokens", None),
            _has_grammar(req, params),
            getattr(req, "input_embeds", None) is not None,
            getattr(req, "return_routed_experts", False),
            getattr(req, "routed_experts_start_len", None),
            getattr(req, "vocab_size", None),
            getattr(params, "ignore_eos", False),
            getattr(params, "stop_token_ids", None),
            getattr(req, "eos_token_ids", None),
            getattr(req, "tokenizer", None),
            _count(getattr(params, "stop_strs", None)),
            _count(getattr(params, "stop_regex_strs", None)),
        )

    @property
    def num_bytes(self) -> int:
        """The memory that this object takes until it is written. A client chooses most of it."""
        texts = len(self.rid) + len(self.session_id or "")
        return (
            _FACTS_BYTES
            + _CHAR_BYTES * texts
            + _STOP_ID_BYTES * (_count(self.stop_token_ids) + _count(self.eos_token_ids))
        )

    def describe(self) -> dict[str, Any]:
        """Return the columns of `schema.Requests`, the rid, and what can stop the request."""
        return {
            "rid": self.rid,
            "session_id": self.session_id,
            "origin_len": self.origin_len,
            "max_new_tokens": _int(self.max_new_tokens),
            "ignore_eos": int(bool(self.ignore_eos)),
            "has_grammar": int(self.has_grammar),
            "return_routed_experts": int(bool(self.return_routed_experts)),
            "start_len": _int(self.start_len),
            "vocab_size": _int(self.vocab_size),
            "input_embeds": self.has_embeds,
            "stop": {
                "token_ids": _ints(self.stop_token_ids),
                "eos_token_ids": _ints(self.eos_token_ids),
                "tokenizer_token_ids": _of_tokenizer(self.tokenizer),
                "num_strings": self.num_strings,
                "num_regexes": self.num_regexes,
            },
        }


def _session_id(req: Any) -> Any:
    """Return the id of the session that the request is a turn of.

    From 0.5.15 on, `req.session_id` can be the id of a session of the radix cache instead.
    """
    session = getattr(req, "session", None)
    return getattr(req if session is None else session, "session_id", None)


def _of_tokenizer(tokenizer: Any) -> list[int]:
    own = getattr(tokenizer, "eos_token_id", None)
    return _ints([*([] if own is None else [own]), *_more(tokenizer)])


def _more(tokenizer: Any) -> Any:
    return getattr(tokenizer, "additional_stop_token_ids", None) or ()


def _has_grammar(req: Any, params: Any) -> bool:
    """Whether the request has a grammar.

    When it arrives, the grammar may not be compiled yet, so its specification counts, too.
    """
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
