"""The stand-ins of a `Req` and of the KV info object that newer releases attach to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from ..missing import Missing
from .base import UNKNOWN_LEN, Quiet, StandIn
from .stops import ANY_SAMPLING, AnySampling, Outputs, Tokenizer, Unsaid

_PROMPT, _OUTPUTS = Unsaid("req.origin_input_ids"), Unsaid("req.output_ids")


class Kv(StandIn):
    """`req.kv`: what the request holds in the KV pools."""

    what = "req.kv"
    cache_protected_len = 0
    mamba_pool_idx = None  # no supported recording has a model with state besides KV

    def __init__(self, pool_idx: int | None) -> None:
        self.kv_committed_len = UNKNOWN_LEN
        self.kv_allocated_len = UNKNOWN_LEN
        self.req_pool_idx = pool_idx

    # No book depends on what a sliding window evicted.
    max_evicted_seqlen = swa_evicted_seqlen = 0

    def clamp_evicted_seqlens(self, _: int) -> None: ...


class Request(StandIn):
    """One request.

    Its lengths are stored once and can be read as `req.X` and `req.kv.X`, as the different eras
    require.
    """

    what = "req"
    kv_is_optional = False  # 0.5.16 to 0.5.18: `req.kv` is None while the request holds no KV
    committed_on_kv = False  # from 0.5.19: the length moves with the `kv` object to its new owner
    session: object | None = None  # the session of which this request is a turn
    # No book depends on these and recordings do not hold them, so they read as absent.
    return_logprob = False
    stream = False
    cached_tokens = Quiet("req.cached_tokens")  # only used in a log line
    skip_radix_cache_insert = False
    lock = lock_receipt = None
    mamba_pool_idx = None
    inflight_middle_chunks = 0  # lifted code never sees a request with more of its prompt to come
    sampling_params: AnySampling = ANY_SAMPLING
    # Set from the recording before a decision needs them; until then they are unknown.
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
        # Used by the engine, not by sglang: the number of this incarnation of the request, and
        # its open claims.
        self.incarnation, self.claims = 0, 0
        self.prepared: tuple[int, int] | None = (
            None  # (incarnation, slots claimed) of its last prepare
        )
        self.seen = False
        self.released: int | None = None  # the committed length that a release asked for
        # (allocated, committed) lengths of a release in which its session took part
        self.given: tuple[int, int | None] | None = None

    def refresh_fill_ids(self) -> None:
        """Does nothing: this concerns tokens, not books."""

    _refresh_fill_ids = refresh_fill_ids

    def set_extend_range(self, *_: int) -> None:
        """Does nothing: the recording says which part of the prompt an extend covers."""

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
        """Mark that an extend gave the request KV."""
        self._kv.req_pool_idx, self.holds_kv = self.qid, True

    def lets_kv_go(self) -> None:
        """Mark that the request's KV was released."""
        self._kv.req_pool_idx, self.holds_kv = None, False


class Ended(StandIn):
    """`req.finished_reason` of a request that has ended.

    Only a session needs the kind of end; asking here stops the path.
    """

    what = "req.finished_reason"

    def _kind(self) -> NoReturn:
        raise Missing("the kind of req.finished_reason")

    __class__ = property(_kind)  # isinstance() reads this


ENDED = Ended()


class Decided(StandIn):
    """`req.grammar` at a finish decision: complete or not, as recorded."""

    what = "req.grammar"

    def __init__(self, terminated: bool) -> None:
        self._terminated = terminated

    def is_terminated(self) -> bool:
        return self._terminated


class Grammar(StandIn):
    """`req.grammar` while a result is processed.

    It becomes complete, or rejects a token, at the same point where the live grammar did according
    to the recording.
    """

    what = "req.grammar"

    def __init__(self, num_emitted: int, *, done: bool) -> None:
        self._left, self._done = num_emitted, done

    def accept_token(self, token: int) -> None:
        self._left -= 1
        if (
            self._left < 0 and not self._done
        ):  # not a token it accepts; a complete grammar takes any
            raise ValueError(token)

    def is_terminated(self) -> bool:
        return self._done and self._left <= 0


def committed_lens(reqs: Iterable[Request]) -> list[int]:
    """Return the committed lengths of a whole batch, which are needed at every step."""
    return [request._kv.kv_committed_len for request in reqs]


def allocated_lens(reqs: Iterable[Request]) -> list[int]:
    return [request._kv.kv_allocated_len for request in reqs]
