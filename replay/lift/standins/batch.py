"""The stand-ins of a `ScheduleBatch` and of the draft input it carries from step to step."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from ..missing import Missing
from .base import UNKNOWN_LEN, Quiet, StandIn
from .request import Request
from .scheduler import TokenPool
from .server_args import Algorithm
from .vector import Vector


class HiddenMode(IntEnum):
    """`CaptureHiddenMode`; no book depends on it."""

    NULL = 0

    def need_capture(self) -> bool:
        return False


class DecodeMode(StandIn):
    """`ForwardMode.DECODE`."""

    what = "batch.forward_mode"

    def is_decode(self) -> bool:
        return True

    def is_extend(self) -> bool:
        return False


class DraftInput(StandIn):
    """`batch.spec_info` between two steps: the requests whose results are still to come."""

    what = "batch.spec_info"
    verify_done = None
    cur_allocated_seq_lens_cpu = None  # DFLASH, 0.5.14: None makes it use the requests' own lengths

    def __init__(self, future_indices: Vector, defaults: dict[str, Any]) -> None:
        self.__dict__.update(defaults)
        self.future_indices = future_indices
        self.new_seq_lens: Vector | None = None
        self.direct_carry_valid = True

    def filter_batch(self, new_indices: Vector, **_: object) -> None:
        self.future_indices = self.future_indices[new_indices]
        self.direct_carry_valid = False

    def merge_batch(self, other: DraftInput) -> None:
        self.future_indices = Vector([*self.future_indices, *other.future_indices])
        self.direct_carry_valid = False


class _Penalties(StandIn):
    what = "batch.sampling_info.penalizer_orchestrator"
    is_required = False  # penalties change which tokens are sampled, and the tokens are recorded


class _Sampling(StandIn):
    what = "batch.sampling_info"
    penalizer_orchestrator = _Penalties()

    def filter_batch(self, *_: object) -> None: ...

    def merge_batch(self, _: object) -> None: ...


class _Model(StandIn):
    what = "batch.model_config"
    is_encoder_decoder = False  # spec v2 has no encoder-decoder models


class _Table(Quiet):
    """`req_to_token`. A server makes its rows long enough for all that its release can allocate."""

    shape = (UNKNOWN_LEN, 2 * UNKNOWN_LEN)  # more than any length, even an unknown one


class _Pool(Quiet):
    req_to_token = _Table("batch.req_to_token_pool.req_to_token")


class Allocator(StandIn):
    """The KV allocator. It accepts slots back and does nothing with them."""

    what = "allocator"

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size

    def free(self, _: object) -> None: ...

    def free_segment(self, *_: object, **__: object) -> None: ...


# The only lifted function that a stand-in calls by its name.
ASKED_BY_TREE = "pop_committed_kv_cache"


class TreeCache(StandIn):
    """The cache that keeps or frees a finished request's slots.

    No book depends on which slots these are. How many there are is decided by the lifted release
    function.
    """

    what = "tree_cache"

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.token_to_kv_pool_allocator = Allocator(page_size)
        self.req_to_token_pool = TokenPool()

    def supports_mamba(self) -> bool:
        return False

    def cache_finished_req(
        self, req: Request, is_insert: bool = True, kv_len_to_handle: int | None = None
    ) -> None:
        """Up to 0.5.15 the cache itself asks the request for its committed length."""
        if kv_len_to_handle is None:
            getattr(req, ASKED_BY_TREE)()

    def claim_kv_row(self, _: Request) -> bool:
        return False

    def free_kv_row(self, *_: object) -> None: ...

    def unlock(self, _: object) -> None: ...

    def unpin(self, _: object) -> None: ...

    def on_release(self, *_: object, **__: object) -> None: ...

    def checkpoint(self, *_: object, **__: object) -> None: ...

    def insert_req(self, *_: object, **__: object) -> None: ...


class Batch(StandIn):
    """A batch: its requests, their lengths as far as they are known, and the sum."""

    what = "batch"
    device = "cpu"
    model_config = _Model()
    sampling_info = _Sampling()
    req_to_token_pool = _Pool("batch.req_to_token_pool")
    out_cache_loc = Quiet("batch.out_cache_loc")
    forward_mode: object = DecodeMode()
    mix_running_indices: Vector | None = None
    # No book depends on these and recordings do not hold them, so they read as absent.
    multimodal_inputs = None
    hisparse_coordinator = None
    output_ids = None
    input_ids = None
    mamba_track_indices = None
    return_logprob = False
    has_stream = False
    return_hidden_states = False
    return_hidden_states_mode = HiddenMode.NULL
    is_prefill_only = False
    is_spec_v2 = True
    has_grammar = False

    def __init__(
        self, reqs: list[Request], seq_lens: list[int], algorithm: Algorithm, tree: TreeCache
    ) -> None:
        self.reqs = reqs
        self.decoding_reqs: list[Request] | None = None
        # Only for an extend. Its log probabilities are not recorded.
        self.prefix_lens: list[int] = []
        self.extend_lens: list[int] = []
        self.extend_logprob_start_lens: list[int] = []
        self.extend_num_tokens = 0
        self.seq_lens = Vector(seq_lens)
        self.seq_lens_cpu: Vector | None = Vector(seq_lens)
        self.orig_seq_lens = Vector(seq_lens)
        self.seq_lens_sum: int | None = sum(seq_lens)
        self.req_pool_indices = self.req_pool_indices_cpu = Vector([req.qid for req in reqs])
        self.spec_info: DraftInput | None = None
        self.spec_algorithm, self.tree_cache = algorithm, tree
        self.token_to_kv_pool_allocator = tree.token_to_kv_pool_allocator

    def batch_size(self) -> int:
        return len(self.reqs)

    def maybe_evict_swa(self) -> None: ...

    def maybe_wait_verify_done(self) -> None: ...

    def cumulate_penalty_output_tokens(self) -> Any:
        raise Missing("batch.cumulate_penalty_output_tokens", "calls")
