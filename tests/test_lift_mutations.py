"""Mutations: one broken line in any lifted role makes a release differ from its recorded server."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from lifting import Changed, against_observed, bundled_recording, compiled, release
from specdiff.replay.quantity import Quantity as Q

_BATCH = "srt/managers/schedule_batch.py"
_PROCESSOR = "srt/managers/scheduler_components/batch_result_processor.py"
_MIXIN = "srt/managers/scheduler_output_processor_mixin.py"
_SUM_IS_NONE = "self.seq_lens_sum = None"


@dataclass(frozen=True)
class Mutation:
    """One broken line in one function of a release. `shows`: the quantities that must differ, and no others."""

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
HISTOGRAM = frozenset({Q.SPEC_HISTOGRAM})
FOLLOW = COMMITS | {Q.KV_ALLOCATED_LEN, Q.RELEASED_LEN}  # both follow from the committed length
FINISH, RELEASED = frozenset({Q.FINISH}), frozenset({Q.RELEASED_LEN})
OLD = "0.5.10-random"

MUTATIONS = {
    "resolve off by one": Mutation(
        "0.5.23",
        _PROCESSOR,
        "_resolve_spec_v2_tokens",
        "len(accept_tokens)",
        "len(accept_tokens) - 1",
        FOLLOW,
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
        COMMITS | COUNTS | HISTOGRAM,
    ),
    "resolve with a wrong slice": Mutation(
        "0.5.23",
        _PROCESSOR,
        "_resolve_spec_v2_tokens",
        "[i * stride :",
        "[i * stride + 1 :",
        FOLLOW,
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
        frozenset({Q.SPEC_ACCEPTED_DRAFTS}) | HISTOGRAM,
    ),
    "resolve of 0.5.10 off by one": Mutation(
        "0.5.10",
        _MIXIN,
        "_resolve_spec_overlap_token_ids",
        "+= accept_lens[i]",
        "+= accept_lens[i] - 1",
        FOLLOW,
        OLD,
    ),
    "prepare claims a slot": Mutation(
        "0.5.23",
        "srt/speculative/eagle_utils.py",
        "eagle_prepare_for_decode",
        "r.decode_batch_idx += 1",
        "r.kv.kv_committed_len += 1",
        FOLLOW,
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
    "experts for every request": Mutation(
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
    "experts past the stop": Mutation(
        "0.5.23",
        _PROCESSOR,
        "_maybe_collect_routed_experts",
        "req.output_ids_through_stop",
        "req.output_ids",
        EXPERTS,
    ),
    "indexer past the stop": Mutation(
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
    "prepare allocates a slot too many": Mutation(
        "0.5.10",
        "srt/speculative/eagle_info_v2.py",
        "prepare_for_decode",
        "x = r.kv_committed_len + 2 *",
        "x = 1 + r.kv_committed_len + 2 *",
        frozenset({Q.KV_ALLOCATED_LEN}),
        OLD,
    ),
    "finish at the limit, one too late": Mutation(
        "0.5.23",
        _BATCH,
        "update_finish_state",
        "if len(self.output_ids) >= self",
        "if len(self.output_ids) > self",
        FINISH,
    ),
    "finish of 0.5.10 at the limit, one too late": Mutation(
        "0.5.10",
        _BATCH,
        "check_finished",
        "self.output_ids) >= self",
        "self.output_ids) > self",
        FINISH,
        OLD,
    ),
    "finish before the stop": Mutation(
        "0.5.23",
        _BATCH,
        "_check_token_based_finish",
        "self.finished_len = matched_pos + 1",
        "self.finished_len = matched_pos",
        FINISH,
    ),
    "finish without ignore_eos": Mutation(
        "0.5.23",
        _BATCH,
        "_check_token_based_finish",
        "if self.sampling_params.ignore_eos:",
        "if False:",
        FINISH,
    ),
    "finish without its cap": Mutation(
        "0.5.23",
        _BATCH,
        "_cap_finished_len_at_max_new_tokens",
        "self.finished_len > max_new_tokens",
        "False",
        FINISH,
    ),
    "finish looks at one new token only": Mutation(
        "0.5.23",
        _BATCH,
        "update_finish_state",
        "new_accepted_tokens = self.output_ids[-new_accepted_len:]",
        "new_accepted_tokens = self.output_ids[-1:]",
        FINISH,
    ),
    "release past the stop": Mutation(
        "0.5.23",
        "srt/mem_cache/common.py",
        "release_kv_cache",
        "req.owned_kv_len()",
        "req.kv.kv_committed_len",
        RELEASED,
    ),
    "commit length off by one": Mutation(
        "0.5.23",
        _BATCH,
        "owned_kv_len",
        "len(self.origin_input_ids) + len(self.output_ids_through_stop),",
        "len(self.origin_input_ids) + len(self.output_ids_through_stop) - 1,",
        RELEASED,
    ),
    "commit length of 0.5.10 off by one": Mutation(
        "0.5.10",
        _BATCH,
        "pop_committed_kv_cache",
        "return self.kv_committed_len",
        "return self.kv_committed_len - 1",
        RELEASED,
        OLD,
    ),
    "statistics count a draft too many": Mutation(
        "0.5.23",
        _BATCH,
        "update_spec_correct_drafts_histogram",
        "self.spec_correct_drafts_histogram[num_correct_drafts] += 1",
        "self.spec_correct_drafts_histogram[0] += 1",
        HISTOGRAM,
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
def test_a_broken_line_shows_in_exactly_the_expected_quantities(what: str) -> None:
    mutation = MUTATIONS[what]
    with release(mutation.version) as source:
        broken = compiled(
            Changed(source, mutation.path, mutation.function, mutation.old, mutation.new)
        )
    found = against_observed(bundled_recording(mutation.recording), broken)
    shows = {quantity for quantity, difference in found.items() if difference.differs.any()}
    assert shows == mutation.shows
