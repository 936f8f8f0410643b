"""What a recording holds: the event kinds and, for each, its columns in their order on the wire and on disk.

Two sorts of table. An *event table* (`Extends`, `Launches`, ...) has one row per event of its kind, columns int64.
A *row table* (`ExtendRows`, `LaunchRows`, ...) has one row per request in such an event, columns int32, in batch
order; `num_rows` of the event table says how many rows each event owns. `Events` is the spine: it gives the one
order in which everything happened.

Absent values (Python's None in sglang) are `NONE64` / `NONE32`; readers turn them back into None, nobody compares
them as numbers. Lengths are in tokens. Sources are named by their sglang function; places differ by release.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    I32 = NDArray[np.int32]
    I64 = NDArray[np.int64]

FORMAT = "specdiff-recording"
VERSION = 5

NONE32 = -(2**31)
NONE64 = -(2**63)


class Kind(IntEnum):
    """What the scheduler did. The numbers are part of the format: never reuse one."""

    ARRIVE = 1
    EXTEND = 2
    PREPARE = 3
    LAUNCH = 4
    RESULT = 5
    FILTER = 6
    MERGE = 7
    RETRACT = 8
    ABORT = 9
    FINISH = 10
    RELEASE = 11
    GAP = 12
    SESSION_SAVE = 13
    SESSION_RESTORE = 14
    SENT = 15
    SEED = 16
    CONTROL = 17
    WEIGHT_SPAN = 18

    @property
    def words(self) -> str:
        """For people."""
        return self.name.lower().replace("_", " ")


class Mode(IntEnum):
    """What a launched batch did; sglang's ForwardMode, reduced to what the books tell apart."""

    EXTEND = 1
    DECODE = 2
    MIXED = 3
    IDLE = 4
    OTHER = 5


class Act(IntEnum):
    """What a trainer, or whoever operates the server, told the scheduler."""

    PAUSE = (
        1  # generation stands still, and everybody stays where they are: sglang's mode `in_place`
    )
    PAUSE_RETRACT = 2  # and all who run are retracted: mode `retract`
    CONTINUE = 3
    WEIGHTS = 4  # other weights serve from here on
    FLUSH = 5  # nothing is in the prefix cache any more; sglang declines while requests are there, and nothing is recorded then


class Reason(IntEnum):
    """Why a request finished; sglang's FINISH_* classes."""

    STOP_TOKEN = 1
    STOP_STRING = 2
    LENGTH = 3
    ABORT = 4
    OTHER = 5


# By the name of sglang's class; any other is OTHER.
REASONS = {
    "FINISH_MATCHED_TOKEN": Reason.STOP_TOKEN,
    "FINISH_MATCHED_STR": Reason.STOP_STRING,
    "FINISHED_MATCHED_REGEX": Reason.STOP_STRING,
    "FINISH_LENGTH": Reason.LENGTH,
    "FINISH_ABORT": Reason.ABORT,
}


def reason_told(said: Mapping[str, Any]) -> Reason:
    """The reason of a finish in the words that a client gets (`BaseFinishReason.to_json`)."""
    kind, matched = said.get("type"), said.get("matched")
    if kind == "stop":
        return Reason.STOP_STRING if isinstance(matched, str) else Reason.STOP_TOKEN
    return {"length": Reason.LENGTH, "abort": Reason.ABORT}.get(str(kind), Reason.OTHER)


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """The spine: event `i` is row `ref[i]` of the table of `kind[i]`."""

    kind: I64
    ref: I64
    iteration: I64  # scheduler.forward_ct when it happened
    time_ns: I64  # time.monotonic_ns()


@dataclass(frozen=True, slots=True, eq=False)
class Arrives:
    """A request entered the waiting queue (`Scheduler._add_request_to_queue`), or was first seen in a batch."""

    qid: I64
    # 1 when it came back after a retract; absent: it was met in mid-life, as recording had begun later or missed things.
    requeued: I64


@dataclass(frozen=True, slots=True, eq=False)
class Extends:
    """`ScheduleBatch.prepare_for_extend`, when it returned: a prefill, a chunk of one, or a re-prefill. On the decode side
    of a disaggregated server `prepare_for_prebuilt`: a prompt that another server computed, and no launch follows."""

    batch: I64  # which ScheduleBatch object, numbered as first seen
    seq_lens_sum: I64
    num_rows: I64


@dataclass(frozen=True, slots=True, eq=False)
class ExtendRows:
    qid: I32
    prefix_len: I32  # tokens found in the cache
    seq_len: I32  # prefix_len + extend_len
    extend_len: I32
    chunked: I32  # 1: more of this prompt follows in a later extend
    committed: I32
    allocated: I32
    output_len: I32


@dataclass(frozen=True, slots=True, eq=False)
class Prepares:
    """`ScheduleBatch.prepare_for_decode` of a spec-v2 batch, around it."""

    batch: I64
    seq_lens_sum_before: I64
    seq_lens_sum_after: I64
    device_sum: (
        I64  # sum(batch.seq_lens) where that is a CPU tensor, else absent (no sync on a GPU)
    )
    num_steps: I64  # draft_worker.speculative_num_steps at that moment: what sizes the allocation
    num_draft_tokens: I64  # likewise speculative_num_draft_tokens
    num_rows: I64


@dataclass(frozen=True, slots=True, eq=False)
class PrepareRows:
    qid: I32
    committed_before: I32
    committed_after: I32
    allocated_before: I32
    allocated_after: I32


@dataclass(frozen=True, slots=True, eq=False)
class Launches:
    """`Scheduler.run_batch`, when it returned."""

    batch: I64
    launch: I64  # number of this launch; the result that answers it carries the same
    mode: I64
    seq_lens_sum_entry: I64  # before run_batch: None or not yet resolved from 0.5.13 on
    seq_lens_sum: I64
    seq_lens_cpu_none: I64  # 1 when batch.seq_lens_cpu was None
    num_rows: I64


@dataclass(frozen=True, slots=True, eq=False)
class LaunchRows:
    qid: I32


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """A processed result: for decode when the resolve function returned, for extend when processing did."""

    launch: I64
    mode: I64
    stride: I64  # result.speculative_num_draft_tokens (0.5.12 on)
    worker_stride: (
        I64  # draft_worker.speculative_num_draft_tokens at that moment (what 0.5.11 slices with)
    )
    num_non_draft: I64  # result.num_non_draft_tokens_per_req (0.5.20 on)
    batch_accepted_drafts: I64  # the batch-level count; it counts stale rows in every release
    num_tokens: I64  # how many of `Recording.tokens` belong to this result: next_token_ids, padded
    num_rows: I64


@dataclass(frozen=True, slots=True, eq=False)
class ResultRows:
    qid: I32
    accept_len: I32  # result.accept_lens, bonus included; absent for extend
    num_emitted: I32  # length of what resolve returned for it (shorter where a grammar cut the run)
    is_retracted: I32  # sampled when the result began to be processed
    finished: I32  # likewise
    committed_before: I32
    committed_after: I32
    output_len: I32  # len(req.output_ids) before this result
    spec_verify_ct: I32  # after it
    spec_accepted_drafts: I32  # after it
    grammar_done: I32  # req.grammar.is_terminated() when the finish is decided; absent: no grammar


@dataclass(frozen=True, slots=True, eq=False)
class Filters:
    """`ScheduleBatch.filter_batch`, around it; the rows are who is left."""

    batch: I64
    size_before: I64  # absent: requests were left out of the recording, and who was in the batch is not known
    seq_lens_sum_before: I64
    seq_lens_sum_after: I64
    device_sum: I64
    num_rows: I64


@dataclass(frozen=True, slots=True, eq=False)
class FilterRows:
    qid: I32


@dataclass(frozen=True, slots=True, eq=False)
class Merges:
    """`ScheduleBatch.merge_batch(other)`, around it; the rows are who is in the batch then."""

    batch: I64
    other: I64
    seq_lens_sum_before: I64
    other_seq_lens_sum: I64
    seq_lens_sum_after: I64
    device_sum: I64
    num_rows: I64


@dataclass(frozen=True, slots=True, eq=False)
class MergeRows:
    qid: I32


@dataclass(frozen=True, slots=True, eq=False)
class Retracts:
    """`Req.reset_for_retract`, around it."""

    qid: I64
    committed_before: I64
    committed_after: I64
    allocated_before: I64
    allocated_after: I64
    output_len: I64


@dataclass(frozen=True, slots=True, eq=False)
class Aborts:
    """`Scheduler.abort_request` matched this request."""

    qid: I64
    queued: I64  # 1: it was waiting and never reached a batch again


@dataclass(frozen=True, slots=True, eq=False)
class Finishes:
    """A finished request, when its top-k rows have been collected and before its KV is released."""

    qid: I64
    reason: I64
    origin_len: I64  # len(req.origin_input_ids) now: an abort rewrites it
    output_len: I64  # raw, overshoot included
    finished_len: I64
    committed: I64
    allocated: I64
    cached_tokens: I64
    return_routed_experts: I64
    start_len: I64  # req.routed_experts_start_len; absent before 0.5.12
    spec_verify_ct: I64
    spec_accepted_drafts: I64
    histogram_sum: I64  # sum(hist) of req's acceptance histogram
    histogram_weighted: I64  # sum(i * hist[i])
    reasoning_tokens: I64
    retractions: I64  # req.retraction_count
    # Entries of req.output_token_logprobs_val and req.hidden_states when the finish is decided: those of the last run
    # are not among them yet. Absent: not asked for, or kept elsewhere (log probabilities from 0.5.13 on).
    num_logprobs: I64
    num_hidden_states: I64
    experts_state: I64  # 0 nothing collected, 1 collected, absent: the server has no capturer
    experts_start: I64  # rows [start, start + rows), as the server asked them of its capturer
    experts_rows: I64
    experts_stored: (
        I64  # how many rows are in `Recording.experts`: [stored_from, stored_from + stored)
    )
    experts_stored_from: (
        I64  # absent: none is, or the file is older than version 4; then it is experts_start
    )
    indexer_state: I64
    indexer_start: I64
    indexer_rows: I64
    indexer_stored: I64
    indexer_stored_from: I64


@dataclass(frozen=True, slots=True, eq=False)
class Releases:
    """`release_kv_cache`, on entry and when it returned."""

    qid: I64
    committed: I64
    allocated: I64
    committed_after: I64
    allocated_after: I64
    released_len: I64  # the committed length it went by (`owned_kv_len` and its forerunners); absent: it asked for none


@dataclass(frozen=True, slots=True, eq=False)
class Saves:
    """A turn of a streaming session gives its KV to the session, around it (`try_cache_finished_req`, up to
    0.5.10.post1 `cache_finished_req`): when it finished, when it was aborted, and when it is about to be retracted."""

    qid: I64
    session: I64  # which session, numbered as first seen; one that is opened anew is another
    origin_len: (
        I64  # len(req.origin_input_ids) on entry: what was said before and the turn's own prompt
    )
    output_len: I64  # len(req.output_ids) on entry, overshoot included
    finished_len: I64  # absent: aborted or retracted
    reason: I64  # absent: retracted
    committed_before: I64  # of the request, on entry
    allocated_before: I64
    committed: (
        I64  # of the session's slot, after; absent: it keeps none (an aborted turn from 0.5.11 on)
    )
    allocated: I64


@dataclass(frozen=True, slots=True, eq=False)
class Restores:
    """A turn of a streaming session takes over its KV, when that is done (`try_match_prefix`, up to 0.5.10.post1
    `match_prefix`). Each attempt to schedule the turn does it anew; a turn whose session has no KV never does."""

    qid: I64
    session: I64
    key_len: (
        I64  # tokens that may be matched: all but the last; min(key_len, committed) are inherited
    )
    committed: I64  # of the request, after
    allocated: I64


@dataclass(frozen=True, slots=True, eq=False)
class Sents:
    """The message that tells a client of its request's end has left the scheduler (`SenderWrapper.send_output`).

    Output ids and log probabilities go out in slices: those here are the sums over all messages. Everything else goes
    out whole each time: what the last message held. Absent: not asked for; asked for and not sent is 0.
    """

    qid: I64
    reason: I64  # as the client was told: a grammar's end is told as a stop token
    prompt_tokens: I64  # as told
    completion_tokens: I64  # as told
    num_messages: I64
    num_output_ids: I64
    num_in_order: I64  # of these: up to the first slice that was not the request's next output ids
    num_logprobs: I64  # entries of output_token_logprobs_val
    num_hidden_states: (
        I64  # entries; the first one of a prefill holds a row for every token of the prompt
    )
    experts_rows: I64
    indexer_rows: I64


@dataclass(frozen=True, slots=True, eq=False)
class Seeds:
    """Requests that were under way in a batch where recording, or what is left of it, begins: see `seeds.py`."""

    batch: I64
    launch: I64  # its decode launch follows; absent: none was under way
    num_rows: I64


@dataclass(frozen=True, slots=True, eq=False)
class SeedRows:
    qid: I32
    begins: I32  # 1: the books of this request begin here; 0: they have begun before, or end here
    seq_len: (
        I32  # committed, less what the prepare of `launch` has claimed; absent: it is not known
    )
    output_len: I32


@dataclass(frozen=True, slots=True, eq=False)
class Controls:
    """The scheduler was told something that is about everybody, when it had heeded it (`Scheduler.pause_generation`,
    `continue_generation`, `flush_cache`, and from 0.5.19 on `record_weight_version_change`)."""

    act: I64  # an `Act`
    weights_before: I64  # which weights served, by their number in `Run.weight_versions`; absent but for WEIGHTS
    weights: I64


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """A client whose end was sent was told that output tokens [start, end) are of these weights (from 0.5.19 on; `meta_info`
    calls it `weight_versions`)."""

    qid: I64
    weights: I64  # by their number in `Run.weight_versions`
    start: I64
    end: I64


@dataclass(frozen=True, slots=True, eq=False)
class Gaps:
    """Events are missing here: the recorder had to drop them, or a cut left them out."""

    dropped: I64


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """One row per request object, numbered by `qid`."""

    origin_len: I64  # at arrival
    max_new_tokens: I64
    ignore_eos: I64
    has_grammar: I64
    return_routed_experts: I64
    start_len: I64
    vocab_size: I64


EVENT_TABLES: dict[Kind, type] = {
    Kind.ARRIVE: Arrives,
    Kind.EXTEND: Extends,
    Kind.PREPARE: Prepares,
    Kind.LAUNCH: Launches,
    Kind.RESULT: Results,
    Kind.FILTER: Filters,
    Kind.MERGE: Merges,
    Kind.RETRACT: Retracts,
    Kind.ABORT: Aborts,
    Kind.FINISH: Finishes,
    Kind.RELEASE: Releases,
    Kind.GAP: Gaps,
    Kind.SESSION_SAVE: Saves,
    Kind.SESSION_RESTORE: Restores,
    Kind.SENT: Sents,
    Kind.SEED: Seeds,
    Kind.CONTROL: Controls,
    Kind.WEIGHT_SPAN: Spans,
}

ROW_TABLES: dict[Kind, type] = {
    Kind.EXTEND: ExtendRows,
    Kind.PREPARE: PrepareRows,
    Kind.LAUNCH: LaunchRows,
    Kind.RESULT: ResultRows,
    Kind.FILTER: FilterRows,
    Kind.MERGE: MergeRows,
    Kind.SEED: SeedRows,
}

# What each version added, so that older files stay readable: what they do not have is absent.
ADDED: dict[int, dict[str, tuple[str, ...]]] = {
    2: {
        "requests": ("vocab_size",),
        "result_rows": ("grammar_done",),
        "finishes": (
            "spec_verify_ct",
            "spec_accepted_drafts",
            "histogram_sum",
            "histogram_weighted",
            "reasoning_tokens",
            "retractions",
            "num_logprobs",
            "num_hidden_states",
        ),
        "releases": ("released_len",),
        "saves": (),  # empty: the whole table
        "restores": (),
    },
    3: {"sents": (), "prepares": ("num_steps", "num_draft_tokens")},
    4: {
        "seeds": (),
        "seed_rows": (),
        "finishes": ("experts_stored_from", "indexer_stored_from"),
    },
    5: {"controls": (), "spans": ()},
}


def columns_in(version: int, name: str, table: type) -> tuple[str, ...]:
    """The columns that a table had in a version of the format; none: that version did not have the table."""
    later = [added[name] for since, added in ADDED.items() if since > version and name in added]
    if () in later:
        return ()
    missing = {column for columns in later for column in columns}
    return tuple(field.name for field in fields(table) if field.name not in missing)
