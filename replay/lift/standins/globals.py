"""What the allow-listed global names of `allowed_names.py` stand for during one replay."""

from __future__ import annotations

import contextlib
from typing import Any

from ..missing import Missing
from .base import Quiet, StandIn
from .batch import Batch, HiddenMode
from .request import Kv, Request
from .scheduler import Capturer
from .server_args import Algorithm, ServerArgs
from .session import SessionSlot
from .vector import Torch


class _Modes(StandIn):
    """`CaptureHiddenMode`."""

    what = "CaptureHiddenMode"
    NULL = HiddenMode.NULL


class _ForwardModes(StandIn):
    """`ForwardMode`. The recording says which requests are launched in which mode."""

    what = "ForwardMode"
    MIXED = Quiet("ForwardMode.MIXED")


class _Algorithms(StandIn):
    """The class `SpeculativeAlgorithm`."""

    what = "SpeculativeAlgorithm"

    def from_string(self, name: str | None) -> Algorithm:
        return Algorithm(name or "NONE")


class _HybridPool(StandIn):
    """`HybridReqToTokenPool`, for models with state besides KV.

    No supported recording has such a model.
    """

    what = "HybridReqToTokenPool"


class _ForDevice(StandIn):
    """`ALLOC_EXTEND_FUNCS`: allocates slots.

    Their number is known beforehand, and no book depends on which they are.
    """

    what = "ALLOC_EXTEND_FUNCS"

    def __getitem__(self, _: object) -> Any:
        return _slots


def stand_ins(server_args: ServerArgs, capturer: Capturer) -> dict[str, Any]:
    """Return the stand-ins by name; see `allowed_names.STAND_INS`."""
    log = Quiet("logger")
    return {
        "torch": Torch(),
        "logger": log,
        "logging": log,
        "Req": Request,
        "ScheduleBatch": Batch,
        "ReqKvInfo": Kv,
        "SessionSlot": SessionSlot,
        "CaptureHiddenMode": _Modes(),
        "ForwardMode": _ForwardModes(),
        "SpeculativeAlgorithm": _Algorithms(),
        "AbortReq": Quiet("AbortReq"),
        "alloc_token_slots": _slots,
        "alloc_paged_token_slots_extend": _slots,
        "alloc_paged_token_slots_extend_for_spec": _slots,
        "get_last_loc": _slots,
        "assign_req_to_token_pool_func": _nothing,
        "evict_from_tree_cache": _nothing,
        "strip_beam_tail": _nothing,  # there are no beams under speculative decoding
        "ALLOC_EXTEND_FUNCS": _ForDevice(),
        "HybridReqToTokenPool": _HybridPool,
        "_get_overlap_plan_stream": lambda _: (None, contextlib.nullcontext()),
        "_device_type": lambda _: "cpu",
        **dict.fromkeys(
            (
                "get_global_server_args",
                "get_server_args",
                "get_spec",
                "get_schedule",
                "get_parallel",
                "get_serving",
            ),
            lambda: server_args,
        ),
        "max_speculative_num_draft_tokens": lambda: server_args.max_speculative_num_draft_tokens,
        "get_global_experts_capturer": lambda: capturer,
        "get_global_indexer_capturer": lambda: capturer,
        "is_pin_memory_available": lambda *_: False,
        "is_npu": lambda: False,
        "MatchResult": Quiet("MatchResult"),  # its content is recorded by the extend that follows
        "DecLockRefParams": Quiet("DecLockRefParams"),
        "get_batch_return_hidden_states_mode": lambda _: HiddenMode.NULL,
        **dict.fromkeys(("_is_cuda", "_is_hip", "_is_npu", "_is_musa", "_DEBUG_ASSERT"), False),
        **{name: _Refused(name) for name in ("get_exec",)},
    }


def _slots(*_: object, **__: object) -> Quiet:
    return Quiet("KV slots")


def _nothing(*_: object, **__: object) -> None: ...


class _Refused(StandIn):
    """Known by name, but no lifted code needs it so far; calling it stops the path."""

    def __init__(self, name: str) -> None:
        self.what = name

    def __call__(self, *_: object) -> Any:
        raise Missing(self.what, "calls")
