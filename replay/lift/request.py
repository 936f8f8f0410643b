"""The stand-in of a `Req`, and of the KV info that newer releases hang on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from .missing import Missing
from .standin import UNKNOWN_LEN, Quiet, StandIn
from .stops import ANY_SAMPLING, AnySampling, Outputs, Tokenizer, Unsaid

_PROMPT, _OUTPUTS = Unsaid("req.origin_input_ids"), Unsaid("req.output_ids")


class Kv(StandIn):
    """`req.kv`: what the request holds of the KV pools."""

    what = "req.kv"
    cache_protected_len = 0
    mamba_pool_idx = None  # no recording here is of a model with state besides KV

    def __init__(self, pool_idx: int | None) -> None:
        self.kv_committed_len = UNKNOWN_LEN
        self.kv_allocated_len = UNKNOWN_LEN
        self.req_pool_idx = pool_idx

    # Sliding windows are not told apart: nothing of them was ever evicted.
    max_evicted_seqlen = swa_evicted_seqlen = 0

    def clamp_evicted_seqlens(self, _: int) -> None: ...


class Request(StandIn):
    """One request. Its lengths live in one place and are read as `req.X` and `req.kv.X` alike, as every era needs."""

    what = "req"
    kv_is_optional = False  # 0.5.16 to 0.5.18: `req.kv` is None while the request holds no KV
    committed_on_kv = False  # from 0.5.19: whoever takes over the record takes over the length
    session: object | None = None  # whose turn it is
    # No book depends on these, and recordings do not hold them: read as absent.
    return_logprob = False
    stream = False
    cached_tokens = Quiet("req.cached_tokens")  # in a log line only
    skip_radix_cache_insert = False
    lock = lock_receipt = None
    mamba_pool_idx = None
    inflight_middle_chunks = 0  # nothing is asked of one whose prompt goes on
    sampling_params: AnySampling = ANY_SAMPLING
    # Set when they are decided on, from the recording; until then they are not known.
    eos_token_ids: frozenset[int]
    tokenizer: Tokenizer | None
    vocab_size: int | None
    to_finish: str | None
    reasoning_tokens: int

    def __init__(self, qid: int, rid: str, kv: Kv, defaults: dict[str, Any]) -> None:
        self.__dict__.update(defaults)
        self.qid, self.rid, self._kv = qid, rid, kv
        self.holds_kv = True
        self.origin_input_ids: Sequence[int] | Unsaid = _PROMPT
        self.output_ids: Sequence[int] | Unsaid | Outputs = _OUTPUTS
        self.finished_reason: object | None = None
        self.finished_len: int | None = None
        self.is_retracted = False
        self.grammar: Grammar | Decided | None = None
        self.return_routed_experts = False
        self.routed_experts_start_len = 0
        self.input_embeds: object | None = None
        # Of the engine, not of sglang: which life of the request this is, and its open claims.
        self.life, self.claims = 0, 0
        self.prepared: tuple[int, int] | None = None  # (life, slots claimed) of its last prepare
        self.seen = False
        self.released: int | None = None  # the committed length that a release asked for
        # (allocated, committed asked for) of a release that its session had a part in
        self.given: tuple[int, int | None] | None = None

    def refresh_fill_ids(self) -> None:
        """Tokens, not books."""

    _refresh_fill_ids = refresh_fill_ids

    def set_extend_range(self, *_: int) -> None:
        """What of it an extend takes: the recording's word."""

    def release_mm_inputs_on_abort(self) -> None: ...

    @property
    def kv(self) -> Kv | None:
        return self._kv if self.holds_kv or not self.kv_is_optional else None

    @kv.setter
    def kv(self, value: Kv | None) -> None:
        self.holds_kv = value is not None
        if value is not None:
            committed, self._kv = self._kv.kv_committed_len, value
            if not self.committed_on_kv:
                self._kv.kv_committed_len = committed

    @property
    def kv_committed_len(self) -> int:
        return self._kv.kv_committed_len

    @kv_committed_len.setter
    def kv_committed_len(self, value: int) -> None:
        self._kv.kv_committed_len = value

    @property
    def kv_allocated_len(self) -> int:
        return self._kv.kv_allocated_len

    @kv_allocated_len.setter
    def kv_allocated_len(self, value: int) -> None:
        self._kv.kv_allocated_len = value

    @property
    def req_pool_idx(self) -> int | None:
        return self._kv.req_pool_idx

    @req_pool_idx.setter
    def req_pool_idx(self, value: int | None) -> None:
        self._kv.req_pool_idx = value

    def registers_kv(self) -> None:
        """An extend has given it KV."""
        self._kv.req_pool_idx, self.holds_kv = self.qid, True

    def lets_kv_go(self) -> None:
        """Its KV was released."""
        self._kv.req_pool_idx, self.holds_kv = None, False


class Ended(StandIn):
    """`req.finished_reason` of a request that has ended, as recorded: that it has; of which kind is asked of a session only."""

    what = "req.finished_reason"

    def _kind(self) -> NoReturn:
        raise Missing("the kind of req.finished_reason")

    __class__ = property(_kind)  # what isinstance() goes by


ENDED = Ended()


class Decided(StandIn):
    """`req.grammar` when the finish is decided: complete or not, as recorded."""

    what = "req.grammar"

    def __init__(self, terminated: bool) -> None:
        self._terminated = terminated

    def is_terminated(self) -> bool:
        return self._terminated


class Grammar(StandIn):
    """`req.grammar`: complete, or at a loss, where the recording says the live grammar was."""

    what = "req.grammar"

    def __init__(self, num_emitted: int, *, done: bool) -> None:
        self._left, self._done = num_emitted, done

    def accept_token(self, token: int) -> None:
        self._left -= 1
        if self._left < 0 and not self._done:  # a token it does not know; a complete one takes any
            raise ValueError(token)

    def is_terminated(self) -> bool:
        return self._done and self._left <= 0


def committed_lens(reqs: Iterable[Request]) -> list[int]:
    """Of a whole batch, as it is asked for at every step."""
    return [request._kv.kv_committed_len for request in reqs]


def allocated_lens(reqs: Iterable[Request]) -> list[int]:
    return [request._kv.kv_allocated_len for request in reqs]
