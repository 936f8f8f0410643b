"""What is lifted and where each release keeps it: candidate places per role, newest first, so a rename is one line."""

from __future__ import annotations

from enum import Enum


class Role(str, Enum):
    """The jobs that together keep the books."""

    RESOLVE = "resolve"
    PREPARE = "prepare"
    PREPARE_DFLASH = "prepare DFLASH"
    PREPARE_NGRAM = "prepare NGRAM"
    EXPERTS = "experts"
    INDEXER = "indexer"
    TOPK = "topk"
    SEQ_LENS = "seq_lens"
    FILTER = "filter"
    MERGE = "merge"
    RETRACT = "retract"
    TAIL = "tail"
    MIX = "mix"
    TAIL_LENS = "tail seq_lens"
    FINISH = "finish"
    COMMIT_LENGTH = "commit length"
    RELEASE = "release"
    STATISTICS = "statistics"
    SESSION_TAKE = "session take"
    SESSION_SAVE = "session save"
    SESSION_RESTORE = "session restore"


_BATCH = "srt/managers/schedule_batch.py"
_PROCESSOR = (
    "srt/managers/scheduler_components/batch_result_processor.py:SchedulerBatchResultProcessor"
)
_MIXIN = "srt/managers/scheduler_output_processor_mixin.py:SchedulerOutputProcessorMixin"

REQ = f"{_BATCH}:Req"
DFLASH_DRAFT = "srt/speculative/dflash_info_v2.py:DFlashDraftInputV2"
# From 0.5.16 on, the KV lengths move to this class, one at a time.
REQ_KV = (f"{_BATCH}:ReqKvInfo",)

_SESSION = "srt/session/streaming_session.py"
_SESSION_0_5_10 = "srt/mem_cache/session_aware_cache.py"
SLOT = (f"{_SESSION}:SessionSlot", f"{_SESSION_0_5_10}:SessionSlot")

PLACES: dict[Role, tuple[str, ...]] = {
    Role.RESOLVE: (
        f"{_PROCESSOR}._resolve_spec_v2_tokens",  # from 0.5.13
        f"{_MIXIN}._resolve_spec_overlap_tokens",  # 0.5.12
        f"{_MIXIN}._resolve_spec_overlap_token_ids",  # up to 0.5.11
    ),
    Role.PREPARE: (
        "srt/speculative/eagle_utils.py:eagle_prepare_for_decode",  # from 0.5.15
        "srt/speculative/eagle_info_v2.py:EagleDraftInputV2Mixin.prepare_for_decode",
    ),
    # Both are spec v2 from 0.5.14 on; before that they were spec v1.
    Role.PREPARE_DFLASH: (f"{DFLASH_DRAFT}.prepare_for_decode",),
    Role.PREPARE_NGRAM: (
        "srt/speculative/eagle_utils.py:eagle_prepare_for_decode",  # from 0.5.15
        "srt/speculative/ngram_info.py:NgramVerifyInput.prepare_for_decode",  # inherited
    ),
    Role.EXPERTS: (
        f"{_PROCESSOR}._maybe_collect_routed_experts",  # from 0.5.13
        f"{_MIXIN}.maybe_collect_routed_experts",
    ),
    Role.INDEXER: (
        f"{_PROCESSOR}._maybe_collect_indexer_topk",  # from 0.5.13
        f"{_MIXIN}.maybe_collect_indexer_topk",  # 0.5.12
    ),
    Role.TOPK: (
        "srt/state_capturer/base.py:BaseTopkCapturer.get_topk",  # from 0.5.12
        "srt/layers/moe/routed_experts_capturer.py:_RoutedExpertsCapturerReal.get_routed_experts",
    ),
    Role.SEQ_LENS: ("srt/managers/overlap_utils.py:FutureMap.resolve_seq_lens_cpu",),  # from 0.5.13
    Role.FILTER: (f"{_BATCH}:ScheduleBatch.filter_batch",),
    Role.MERGE: (f"{_BATCH}:ScheduleBatch.merge_batch",),
    Role.RETRACT: (f"{REQ}.reset_for_retract",),
    # Requests decoded beside a prefill chunk, under speculation from 0.5.19 on. TAIL has no
    # function of its own.
    Role.TAIL: (f"{_PROCESSOR}.process_batch_result_prefill",),
    Role.MIX: (f"{_BATCH}:ScheduleBatch.mix_with_running",),
    Role.TAIL_LENS: ("srt/managers/overlap_utils.py:FutureMap.resolve_mixed_spec_tails",),
    Role.FINISH: (
        f"{REQ}.update_finish_state",  # from 0.5.13
        f"{REQ}.check_finished",
    ),
    Role.COMMIT_LENGTH: (
        f"{REQ}.owned_kv_len",  # from 0.5.21
        f"{REQ}.effective_kv_committed_len",  # 0.5.16 to 0.5.20
        f"{REQ}.pop_committed_kv_cache",
    ),
    Role.RELEASE: ("srt/mem_cache/common.py:release_kv_cache",),
    Role.STATISTICS: (
        f"{REQ}.update_spec_correct_drafts_histogram",  # from 0.5.12
        f"{REQ}.update_spec_acceptance_histogram",
    ),
    Role.SESSION_TAKE: (f"{_SESSION}:StreamingSession.take",),  # from 0.5.22, at the first extend
    Role.SESSION_SAVE: (
        f"{_SESSION}:StreamingSession.try_cache_finished_req",  # from 0.5.11
        f"{_SESSION_0_5_10}:SessionAwareCache.cache_finished_req",
    ),
    Role.SESSION_RESTORE: (
        f"{_SESSION}:StreamingSession.try_match_prefix",  # from 0.5.11
        f"{_SESSION_0_5_10}:SessionAwareCache.match_prefix",
    ),
}

# A source without these has no sglang with spec v2. The other roles are absent in some releases.
ESSENTIAL = (Role.RESOLVE, Role.PREPARE, Role.EXPERTS, Role.TOPK, Role.RETRACT)

# Only an excerpt of these functions is lifted; see `excerpt.py`.
EXCERPTS = frozenset(PLACES[Role.TAIL])

# A replay does not call these itself. Other lifted functions do, or a stand-in.
INNER = frozenset({Role.TOPK, Role.COMMIT_LENGTH, Role.STATISTICS})
