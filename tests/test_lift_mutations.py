"""A deliberately broken copy of a release is told from the recorded server, role by role."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from lifting import Changed, against_observed, books, bundled_recording, release
from specdiff.replay.quantity import Quantity as Q

_BATCH = "srt/managers/schedule_batch.py"
_PROCESSOR = "srt/managers/scheduler_components/batch_result_processor.py"
_MIXIN = "srt/managers/scheduler_output_processor_mixin.py"
_SUM_IS_NONE = "self.seq_lens_sum = None"


@dataclass(frozen=True)
class Mutation:
    """One line of one function of a release, broken; `shows`: the quantities in which that must show."""

    version: str
    path: str
    function: str
    old: str
    new: str
    shows: frozenset[Q]
    recording: str = "0.5.23-random"


COMMITS = frozenset({Q.KV_COMMITTED_LEN, Q.KV_COMMITTED_LEN_SETTLED})
SUMS, EXPERTS = frozenset({Q.SEQ_LENS_SUM}), frozenset({Q.ROUTED_EXPERTS})
COUNTS = frozenset({Q.SPEC_VERIFY_CT, Q.SPEC_ACCEPTED_DRAFTS})
OLD = "0.5.10-random"

MUTATIONS = {
    "resolve off by one": Mutation(
        "0.5.23",
        _PROCESSOR,
        "_resolve_spec_v2_tokens",
        "len(accept_tokens)",
        "len(accept_tokens) - 1",
        COMMITS,
    ),
    "resolve without its guard for finished requests": Mutation(
        "0.5.23",
        _PROCESSOR,
        "_resolve_spec_v2_tokens",
        "if req.is_retracted or req.finished():",
        "if req.is_retracted:",
        COMMITS | COUNTS,
    ),
    "resolve without its guard for retracted requests": Mutation(
        "0.5.23",
        _PROCESSOR,
        "_resolve_spec_v2_tokens",
        "if req.is_retracted or req.finished():",
        "if req.finished():",
        COMMITS | COUNTS,
    ),
    "resolve with a wrong slice": Mutation(
        "0.5.23",
        _PROCESSOR,
        "_resolve_spec_v2_tokens",
        "[i * stride :",
        "[i * stride + 1 :",
        COMMITS,
    ),
    "resolve counts a step twice": Mutation(
        "0.5.23",
        _PROCESSOR,
        "_resolve_spec_v2_tokens",
        "req.spec_verify_ct += 1",
        "req.spec_verify_ct += 2",
        frozenset({Q.SPEC_VERIFY_CT}),
    ),
    "resolve counts the bonus as a draft": Mutation(
        "0.5.23",
        _PROCESSOR,
        "_resolve_spec_v2_tokens",
        "length - num_non_draft",
        "length",
        frozenset({Q.SPEC_ACCEPTED_DRAFTS}),
    ),
    "resolve of 0.5.10 off by one": Mutation(
        "0.5.10",
        _MIXIN,
        "_resolve_spec_overlap_token_ids",
        "+= accept_lens[i]",
        "+= accept_lens[i] - 1",
        COMMITS,
        OLD,
    ),
    "prepare claims a slot": Mutation(
        "0.5.23",
        "srt/speculative/eagle_utils.py",
        "eagle_prepare_for_decode",
        "r.decode_batch_idx += 1",
        "r.kv.kv_committed_len += 1",
        COMMITS,
    ),
    "prepare of 0.5.10 keeps the sum of the step before": Mutation(
        "0.5.10",
        "srt/speculative/eagle_info_v2.py",
        "prepare_for_decode",
        "batch.seq_lens_sum = batch.seq_lens_cpu.sum().item()",
        "pass",
        SUMS,
        OLD,
    ),
    "experts for everybody": Mutation(
        "0.5.23",
        _PROCESSOR,
        "_maybe_collect_routed_experts",
        "if not req.return_routed_experts:",
        "if False:",
        EXPERTS,
    ),
    "experts ignore start_len": Mutation(
        "0.5.23",
        _PROCESSOR,
        "_maybe_collect_routed_experts",
        "start_len = req.routed_experts_start_len",
        "start_len = 0",
        EXPERTS,
    ),
    "experts behind the stop": Mutation(
        "0.5.23",
        _PROCESSOR,
        "_maybe_collect_routed_experts",
        "req.output_ids_through_stop",
        "req.output_ids",
        EXPERTS,
    ),
    "indexer behind the stop": Mutation(
        "0.5.13",
        _PROCESSOR,
        "_maybe_collect_indexer_topk",
        "req.output_ids_through_stop",
        "req.output_ids",
        frozenset({Q.INDEXER_TOPK}),
        "0.5.13-indexer-topk",
    ),
    "topk with a wrong slice": Mutation(
        "0.5.23", "srt/state_capturer/base.py", "get_topk", ": seqlen - 1]", ": seqlen]", EXPERTS
    ),
    "seq_lens off by one": Mutation(
        "0.5.23",
        "srt/managers/overlap_utils.py",
        "resolve_seq_lens_cpu",
        "int(batch.seq_lens_cpu.sum())",
        "int(batch.seq_lens_cpu.sum()) + 1",
        SUMS,
    ),
    "filter keeps the sum": Mutation("0.5.23", _BATCH, "filter_batch", _SUM_IS_NONE, "pass", SUMS),
    "filter without its early return": Mutation(
        "0.5.23",
        _BATCH,
        "filter_batch",
        "if len(keep_indices) == len(self.reqs):",
        "if False:",
        SUMS,
    ),
    "filter of 0.5.10 forgets the sum": Mutation(
        "0.5.10",
        _BATCH,
        "filter_batch",
        "self.seq_lens_sum = self.seq_lens.sum().item()",
        "pass",
        SUMS,
        OLD,
    ),
    "merge keeps the sum": Mutation("0.5.23", _BATCH, "merge_batch", _SUM_IS_NONE, "pass", SUMS),
    "merge of 0.5.10 forgets the other sum": Mutation(
        "0.5.10",
        _BATCH,
        "merge_batch",
        "self.seq_lens_sum += other.seq_lens_sum",
        "pass",
        SUMS,
        OLD,
    ),
    "retract leaves a slot": Mutation(
        "0.5.23",
        _BATCH,
        "reset_for_retract",
        "self.kv.kv_committed_len = 0",
        "self.kv.kv_committed_len = 1",
        COMMITS,
    ),
}


@pytest.mark.parametrize("what", MUTATIONS)
def test_a_broken_release_shows(what: str) -> None:
    mutation = MUTATIONS[what]
    with release(mutation.version) as source:
        broken = books(
            Changed(source, mutation.path, mutation.function, mutation.old, mutation.new)
        )
    found = against_observed(bundled_recording(mutation.recording), broken)
    shows = {quantity for quantity, difference in found.items() if difference.differs.any()}
    assert shows == mutation.shows
