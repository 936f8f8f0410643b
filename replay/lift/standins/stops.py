"""Stand-ins for what can stop a request, as the lifted finish functions read it: sampling parameters and outputs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from ..missing import Missing
from .base import StandIn


class AnySampling(StandIn):
    """`req.sampling_params` outside a finish decision.

    No book depends on how tokens are sampled.
    """

    what = "req.sampling_params"
    top_k = 1


class Sampling(AnySampling):
    """`req.sampling_params` at a finish decision: what can stop the request."""

    def __init__(self, max_new_tokens: int, ignore_eos: bool, stop: Stop) -> None:
        self.max_new_tokens, self.ignore_eos = max_new_tokens, ignore_eos
        self.stop_token_ids = stop.token_ids
        self._num_texts = stop.num_texts

    @property
    def stop_strs(self) -> Sequence[str]:
        return self._texts("stop_strs")

    @property
    def stop_regex_strs(self) -> Sequence[str]:
        return self._texts("stop_regex_strs")

    def _texts(self, name: str) -> Sequence[str]:
        if self._num_texts:  # their contents are never recorded
            raise Missing(f"{self.what}.{name}")
        return ()


ANY_SAMPLING = AnySampling()


class Tokenizer(StandIn):
    """`req.tokenizer`: the tokens that end a text of this model."""

    what = "req.tokenizer"
    eos_token_id = None  # included in `additional_stop_token_ids`

    def __init__(self, token_ids: frozenset[int]) -> None:
        self.additional_stop_token_ids = token_ids


@dataclass(frozen=True, slots=True)
class Stop:
    """The stop conditions of one request, from its details in the recording."""

    token_ids: frozenset[int]
    eos_token_ids: frozenset[int]
    tokenizer_token_ids: frozenset[int] | None  # None in format 1, which does not hold them
    num_texts: int  # the number of stop strings and regexes

    @classmethod
    def of(cls, details: str) -> Stop:
        stop: dict[str, Any] = json.loads(details).get("stop", {})
        tokenizer = stop.get("tokenizer_token_ids")
        return cls(
            frozenset(stop.get("token_ids", ())),
            frozenset(stop.get("eos_token_ids", ())),
            None if tokenizer is None else frozenset(tokenizer),
            stop.get("num_strings", 0) + stop.get("num_regexes", 0),
        )


class Unsaid(StandIn):
    """`req.origin_input_ids` or `req.output_ids` at a moment when the recording does not say how many there are."""

    def __init__(self, what: str) -> None:
        self.what = what

    def _ask(self, *_: object) -> NoReturn:
        raise Missing(f"{self.what} at this moment")

    __len__ = __iter__ = __getitem__ = __contains__ = __eq__ = __add__ = _ask
    __hash__ = StandIn.__hash__


class Outputs(StandIn):
    """`req.output_ids`: its length, and the tokens from position `base` on.

    The tokens before `base` are unknown.
    """

    what = "req.output_ids"

    def __init__(self, base: int) -> None:
        self.base = base
        self._tokens: list[int] = []

    def __len__(self) -> int:
        return self.base + len(self._tokens)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            start, stop, step = at.indices(len(self))
            return self._tokens[self._known(start) : self._known(stop) : step]
        return self._tokens[self._place(at)]

    def __setitem__(self, at: int, token: int) -> None:
        self._tokens[self._place(at)] = token

    def extend(self, tokens: Sequence[int]) -> None:
        self._tokens += tokens

    def _place(self, at: int) -> int:
        return self._known(at + len(self) if at < 0 else at)

    def _known(self, position: int) -> int:
        if position < self.base:
            raise Missing(
                f"req.output_ids[{position}] (from before this recording or from a gap in it)"
            )
        return position - self.base
