"""What a lifted definition may use: allow-listed builtins and modules, and the names that have stand-ins.

This guards against accidents and is not a sandbox: lift only sources you trust.
"""

from __future__ import annotations

import builtins

ALLOWED_BUILTINS = frozenset(
    """
    abs all any bool bytes dict divmod enumerate filter float frozenset getattr hasattr hash id int isinstance
    issubclass iter len list map max min next object print property range repr reversed round set setattr slice
    sorted staticmethod str sum super tuple type zip True False None NotImplemented Ellipsis
    AssertionError AttributeError Exception IndexError KeyError NotImplementedError RecursionError RuntimeError StopIteration
    TypeError ValueError ZeroDivisionError __build_class__
    """.split()  # noqa: SIM905 (one name a line would bury the others)
)
BUILTINS = {name: getattr(builtins, name) for name in sorted(ALLOWED_BUILTINS)}

ALLOWED_MODULES = frozenset(
    "array bisect collections copy dataclasses enum functools http itertools math operator re typing".split()  # noqa: SIM905
)

# Provided by `standins/globals.py`: names that touch a device, a pool or the server's settings. None of them
# keeps books.
STAND_INS = frozenset(
    """
    torch logger logging Req ScheduleBatch ForwardMode CaptureHiddenMode SpeculativeAlgorithm AbortReq
    alloc_token_slots alloc_paged_token_slots_extend alloc_paged_token_slots_extend_for_spec get_last_loc
    assign_req_to_token_pool_func ALLOC_EXTEND_FUNCS _device_type evict_from_tree_cache
    get_global_server_args get_server_args get_spec get_schedule get_parallel get_serving get_exec _get_overlap_plan_stream HybridReqToTokenPool
    max_speculative_num_draft_tokens get_global_experts_capturer get_global_indexer_capturer
    is_pin_memory_available strip_beam_tail get_batch_return_hidden_states_mode
    _is_cuda _is_hip _is_npu is_npu _is_musa _DEBUG_ASSERT
    ReqKvInfo SessionSlot MatchResult DecLockRefParams
    """.split()  # noqa: SIM905
)
