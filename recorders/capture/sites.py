"""The hook sites in sglang: for each role the places where its function was, newest last, and what is
read there.

A place is used if it exists in the sglang at hand; version strings are not consulted.
"""

from __future__ import annotations

from dataclasses import dataclass

_SCHEDULER = "sglang.srt.managers.scheduler:Scheduler"
_BATCH = "sglang.srt.managers.schedule_batch:ScheduleBatch"
_REQ = "sglang.srt.managers.schedule_batch:Req"
_PROCESSOR = (
    "sglang.srt.managers.scheduler_components.batch_result_processor:SchedulerBatchResultProcessor"
)

SCHEDULER_MODULE = "sglang.srt.managers.scheduler"


@dataclass(frozen=True, slots=True)
class HookSite:
    """One function to hook, and the places where it may be."""

    role: str
    places: tuple[str, ...]  # module:qualified.name
    reads: str  # what the probe reads, and whether before or after the function runs
    essential: bool = True  # without it, nothing is recorded


SITES = (
    HookSite("init", (f"{_SCHEDULER}.__init__",), "the run attributes, after it"),
    HookSite("arrive", (f"{_SCHEDULER}._add_request_to_queue",), "the request, before it"),
    HookSite(
        "extend", (f"{_BATCH}.prepare_for_extend",), "prefix, extend and KV lengths, after it"
    ),
    HookSite(
        "prebuilt",
        (f"{_BATCH}.prepare_for_prebuilt",),
        "the same as extend, on the decode side of a disaggregated server (the other side computed the prompt)",
        essential=False,
    ),
    HookSite(
        "prepare", (f"{_BATCH}.prepare_for_decode",), "KV lengths and sums, before and after it"
    ),
    HookSite(
        "launch", (f"{_SCHEDULER}.run_batch",), "mode, sums and requests, before and after it"
    ),
    HookSite(
        "process",
        (f"{_SCHEDULER}.process_batch_result",),
        "the state of the requests, before and after it",
    ),
    HookSite(
        "resolve",
        (
            f"{_SCHEDULER}._resolve_spec_overlap_token_ids",  # up to 0.5.11
            f"{_SCHEDULER}._resolve_spec_overlap_tokens",  # 0.5.12
            f"{_PROCESSOR}._resolve_spec_v2_tokens",  # from 0.5.13
        ),
        "accepted lengths, tokens (on the CPU by then) and the state of the requests, before and after it",
    ),
    HookSite(
        "filter",
        (f"{_BATCH}.filter_batch",),
        "sums before and after it, and the remaining requests",
    ),
    HookSite(
        "merge", (f"{_BATCH}.merge_batch",), "sums before and after it, and the merged requests"
    ),
    HookSite("retract", (f"{_REQ}.reset_for_retract",), "KV lengths, before and after it"),
    HookSite(
        "abort",
        (f"{_SCHEDULER}.abort_request",),
        "the live requests it matches, before and after it",
    ),
    HookSite(
        "experts",
        (
            f"{_SCHEDULER}.maybe_collect_routed_experts",  # up to 0.5.12
            f"{_PROCESSOR}._maybe_collect_routed_experts",  # from 0.5.13
        ),
        "the finished request before it, the collected rows after it",
    ),
    HookSite(
        "indexer",
        (
            f"{_SCHEDULER}.maybe_collect_indexer_topk",  # 0.5.12
            f"{_PROCESSOR}._maybe_collect_indexer_topk",  # from 0.5.13
        ),
        "the collected rows, after it",
        essential=False,
    ),
    HookSite(
        "topk",
        (
            "sglang.srt.layers.moe.routed_experts_capturer:_RoutedExpertsCapturerReal.get_routed_experts",
            "sglang.srt.state_capturer.base:BaseTopkCapturer.get_topk",  # from 0.5.12
        ),
        "which rows were requested",
        essential=False,
    ),
    HookSite(
        "release",
        ("sglang.srt.mem_cache.common:release_kv_cache",),
        "KV lengths, before and after it (a function that is replaced wherever it was imported by name)",
    ),
    HookSite(
        "commit-length",
        (
            f"{_REQ}.pop_committed_kv_cache",  # up to 0.5.15
            f"{_REQ}.effective_kv_committed_len",  # 0.5.16 to 0.5.20
            f"{_REQ}.owned_kv_len",  # from 0.5.21
        ),
        "the committed length that a release uses",
        essential=False,
    ),
    HookSite(
        "session-save",
        (
            "sglang.srt.mem_cache.session_aware_cache:SessionAwareCache.cache_finished_req",  # 0.5.10
            "sglang.srt.session.streaming_session:StreamingSession.try_cache_finished_req",  # from 0.5.11
        ),
        "the turn before it, and what its session keeps after it",
        essential=False,
    ),
    HookSite(
        "session-restore",
        (
            "sglang.srt.mem_cache.session_aware_cache:SessionAwareCache.match_prefix",  # 0.5.10
            "sglang.srt.session.streaming_session:StreamingSession.try_match_prefix",  # from 0.5.11
        ),
        "KV lengths of a turn that took over its session's KV, after it",
        essential=False,
    ),
    HookSite(
        "send",
        (
            "sglang.srt.managers.scheduler:SenderWrapper.send_output",  # up to 0.5.12
            "sglang.srt.managers.scheduler_components.output_sender:SenderWrapper.send_output",  # from 0.5.13
        ),
        "how many entries of each list a message to the detokenizer holds, after it",
        essential=False,
    ),
    HookSite(
        "pause",
        (f"{_SCHEDULER}.pause_generation",),
        "that generation was paused, and in which mode, after it",
        essential=False,
    ),
    HookSite(
        "continue",
        (f"{_SCHEDULER}.continue_generation",),
        "that generation goes on, after it",
        essential=False,
    ),
    HookSite(
        "flush",
        (f"{_SCHEDULER}.flush_cache",),
        "whether the prefix cache was emptied, after it",
        essential=False,
    ),
    HookSite(
        "weights",
        (f"{_SCHEDULER}.record_weight_version_change",),  # from 0.5.19 on
        "which weights are in use, before and after it",
        essential=False,
    ),
)

# Only hashed, not hooked. Together with the resolve function, its hash tells which release's books
# a server keeps.
PREPARE_FUNCTIONS = (
    "speculative/eagle_info_v2.py:EagleDraftInputV2Mixin.prepare_for_decode",  # up to 0.5.14
    "speculative/eagle_utils.py:eagle_prepare_for_decode",  # from 0.5.15
)

# Files under sglang/srt with the code that keeps the books. Not every release has all of them.
ACCOUNTING_SOURCES = (
    "managers/overlap_utils.py",
    "managers/schedule_batch.py",
    "managers/scheduler.py",
    "managers/scheduler_components/batch_result_processor.py",
    "managers/scheduler_output_processor_mixin.py",
    "managers/utils.py",
    "mem_cache/common.py",
    "mem_cache/session_aware_cache.py",
    "session/streaming_session.py",
    "speculative/eagle_info.py",
    "speculative/eagle_info_v2.py",
    "speculative/eagle_utils.py",
    "speculative/spec_utils.py",
    "layers/moe/routed_experts_capturer.py",
    "state_capturer/base.py",
    "state_capturer/routed_experts.py",
    "state_capturer/indexer_topk.py",
)
