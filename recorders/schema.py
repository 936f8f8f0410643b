"""The contents of a recording: the event kinds, and their columns in the order on the wire and on disk.

There are two sorts of tables:
- An *event table* (`Extends`, `Launches`, ...) has one row per event of its kind. Columns are int64.
- A *row table* (`ExtendRows`, `LaunchRows`, ...) has one row per request in such an event, in batch
  order. Columns are int32. `num_rows` of the event table says how many rows each event owns.

`Events` is the spine: it holds the order of all events.

An absent value (None in sglang) is stored as `NONE64` or `NONE32`. Readers turn it back into None;
it is never compared as a number. Lengths are in tokens. Docstrings name the sglang function that an
event comes from; its place differs by release.
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
        """The name of the kind in lower-case words, for messages."""
        return self.name.lower().replace("_", " ")


class Mode(IntEnum):
    """What a launched batch did: sglang's ForwardMode, reduced to what matters for the books."""

    EXTEND = 1
    DECODE = 2
    MIXED = 3
    IDLE = 4
    OTHER = 5


class ControlAct(IntEnum):
    """A control request to the scheduler, from a trainer or an operator of the server."""

    PAUSE = 1  # generation pauses and all requests stay in their batches: sglang's mode `in_place`
    PAUSE_RETRACT = 2  # generation pauses and all running requests are retracted: mode `retract`
    CONTINUE = 3
    WEIGHTS = 4  # new weights are in use from here on
    # The prefix cache was emptied. While there are requests, sglang refuses, and no event is recorded.
    FLUSH = 5


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


def reason_from_json(finish: Mapping[str, Any]) -> Reason:
    """Return the reason of a finish as the client got it (`BaseFinishReason.to_json`)."""
    kind, matched = finish.get("type"), finish.get("matched")
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
    # 1: it came back after a retract. Absent: it was first seen while running, because recording
    # began later or had missed events.
    requeued: I64


@dataclass(frozen=True, slots=True, eq=False)
class Extends:
    """`ScheduleBatch.prepare_for_extend` returned: a prefill, a chunk of one, or a re-prefill.

    On the decode side of a disaggregated server, `prepare_for_prebuilt` returned: the other side
    computed the prompt, and no launch follows.
    """

    batch: I64  # number of the ScheduleBatch object, in order of first use
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
    """`ScheduleBatch.prepare_for_decode` of a spec-v2 batch, with values before and after it."""

    batch: I64
    seq_lens_sum_before: I64
    seq_lens_sum_after: I64
    # sum(batch.seq_lens) if that is a CPU tensor. Absent on a GPU, where reading it would sync.
    device_sum: I64
    num_steps: I64  # draft_worker.speculative_num_steps at that time; it sizes the allocation
    num_draft_tokens: I64  # draft_worker.speculative_num_draft_tokens at that time
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
    """`Scheduler.run_batch` returned."""

    batch: I64
    launch: I64  # number of this launch; its result has the same number
    mode: I64
    seq_lens_sum_entry: I64  # before run_batch; from 0.5.13 on None, or not yet resolved
    seq_lens_sum: I64
    seq_lens_cpu_none: I64  # 1 when batch.seq_lens_cpu was None
    num_rows: I64


@dataclass(frozen=True, slots=True, eq=False)
class LaunchRows:
    qid: I32


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """A result was processed.

    For a decode, this is when the resolve function returned; for an extend, when processing did.
    """

    launch: I64
    mode: I64
    stride: I64  # result.speculative_num_draft_tokens (0.5.12 on)
    # draft_worker.speculative_num_draft_tokens at that time (0.5.11 slices with it)
    worker_stride: I64
    num_non_draft: I64  # result.num_non_draft_tokens_per_req (0.5.20 on)
    batch_accepted_drafts: I64  # the batch-level count; in every release it includes stale rows
    num_tokens: I64  # how many of `Recording.tokens` belong to this result: next_token_ids, padded
    num_rows: I64


@dataclass(frozen=True, slots=True, eq=False)
class ResultRows:
    qid: I32
    accept_len: I32  # result.accept_lens, including the bonus token; absent for extend
    num_emitted: (
        I32  # number of tokens that resolve returned for it (fewer if a grammar cut the run)
    )
    is_retracted: I32  # read before the result was processed
    finished: I32  # read before the result was processed
    committed_before: I32
    committed_after: I32
    output_len: I32  # len(req.output_ids) before this result
    spec_verify_ct: I32  # after this result
    spec_accepted_drafts: I32  # after this result
    grammar_done: I32  # req.grammar.is_terminated() when the finish is decided; absent: no grammar


@dataclass(frozen=True, slots=True, eq=False)
class Filters:
    """`ScheduleBatch.filter_batch`, with values before and after it.

    The rows are the requests that remain in the batch.
    """

    batch: I64
    # Absent: requests were left out of the recording, and the members of the batch are not known.
    size_before: I64
    seq_lens_sum_before: I64
    seq_lens_sum_after: I64
    device_sum: I64
    num_rows: I64


@dataclass(frozen=True, slots=True, eq=False)
class FilterRows:
    qid: I32


@dataclass(frozen=True, slots=True, eq=False)
class Merges:
    """`ScheduleBatch.merge_batch(other)`, with values before and after it.

    The rows are the requests in the merged batch.
    """

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
    """`Req.reset_for_retract`, with values before and after it."""

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
    queued: I64  # 1: it was in the waiting queue and did not enter a batch any more


@dataclass(frozen=True, slots=True, eq=False)
class Finishes:
    """A request finished. The values are those after its top-k rows were collected and before its
    KV is released."""

    qid: I64
    reason: I64
    origin_len: I64  # len(req.origin_input_ids) at this point: an abort rewrites it
    output_len: I64  # raw, including overshoot
    finished_len: I64
    committed: I64
    allocated: I64
    cached_tokens: I64
    return_routed_experts: I64
    # req.routed_experts_start_len; absent before 0.5.12, except in recordings of the rig
    start_len: I64
    spec_verify_ct: I64
    spec_accepted_drafts: I64
    histogram_sum: I64  # sum(hist) of req's acceptance histogram
    histogram_weighted: I64  # sum(i * hist[i])
    reasoning_tokens: I64
    retractions: I64  # req.retraction_count
    # Number of entries of req.output_token_logprobs_val and req.hidden_states when the finish is
    # decided; those of the last run are not included yet. Absent: the client did not ask for them,
    # or sglang keeps them elsewhere (log probabilities from 0.5.13 on).
    num_logprobs: I64
    num_hidden_states: I64
    experts_state: I64  # 0: nothing collected, 1: collected, absent: the server has no capturer
    experts_start: I64  # the server requested rows [start, start + rows) from its capturer
    experts_rows: I64
    # How many rows are in `Recording.experts`: [stored_from, stored_from + stored).
    experts_stored: I64
    # Absent: no rows are stored, or the file is older than version 4; then it equals experts_start.
    experts_stored_from: I64
    indexer_state: I64
    indexer_start: I64
    indexer_rows: I64
    indexer_stored: I64
    indexer_stored_from: I64


@dataclass(frozen=True, slots=True, eq=False)
class Releases:
    """`release_kv_cache`, with values on entry and when it returned."""

    qid: I64
    committed: I64
    allocated: I64
    committed_after: I64
    allocated_after: I64
    # The committed length that the release used (`owned_kv_len` and its predecessors). Absent: it
    # read none.
    released_len: I64


@dataclass(frozen=True, slots=True, eq=False)
class Saves:
    """A turn of a streaming session gave its KV to the session, with values before and after.

    The source is `try_cache_finished_req` (up to 0.5.10.post1 `cache_finished_req`). It runs when a
    turn has finished, was aborted, or is about to be retracted.
    """

    qid: I64
    session: I64  # session number, in order of first use; a reopened session gets a new number
    origin_len: I64  # len(req.origin_input_ids) on entry: earlier turns and this turn's own prompt
    output_len: I64  # len(req.output_ids) on entry, including overshoot
    finished_len: I64  # absent: aborted or retracted
    reason: I64  # absent: retracted
    committed_before: I64  # of the request, on entry
    allocated_before: I64
    # Of the session's slot, afterwards. Absent: it keeps nothing (an aborted turn from 0.5.11 on).
    committed: I64
    allocated: I64


@dataclass(frozen=True, slots=True, eq=False)
class Restores:
    """A turn of a streaming session took over the session's KV.

    The source is `try_match_prefix` (up to 0.5.10.post1 `match_prefix`). Every attempt to schedule
    the turn does this again. If the session has no KV, it does not happen.
    """

    qid: I64
    session: I64
    key_len: I64  # tokens that may be matched: all except the last; min(key_len, committed) are inherited
    committed: I64  # of the request, after
    allocated: I64


@dataclass(frozen=True, slots=True, eq=False)
class Sents:
    """The message that reports the end of a request to its client left the scheduler
    (`SenderWrapper.send_output`).

    Output ids and log probabilities are sent in slices; the numbers here are sums over all
    messages. Everything else is sent in full each time; the numbers are those of the last message.
    Absent means that the client did not ask for it; 0 means that it did, but none was sent.
    """

    qid: I64
    reason: I64  # as sent to the client; the end of a grammar is reported as a stop token
    prompt_tokens: I64  # as sent to the client
    completion_tokens: I64  # as sent to the client
    num_messages: I64
    num_output_ids: I64
    num_in_order: I64  # output ids before the first slice that is not the request's next output ids
    num_logprobs: I64  # entries of output_token_logprobs_val
    # Entries; the first one of a prefill has a row for every token of the prompt.
    num_hidden_states: I64
    experts_rows: I64
    indexer_rows: I64


@dataclass(frozen=True, slots=True, eq=False)
class Seeds:
    """Requests that were running in a batch when recording, or what is left of it, begins: see `seeds.py`."""

    batch: I64
    launch: I64  # the number of its decode launch, which follows; absent: none was under way
    num_rows: I64


@dataclass(frozen=True, slots=True, eq=False)
class SeedRows:
    qid: I32
    begins: I32  # 1: the books of this request begin here; 0: they began earlier, or end here
    seq_len: I32  # committed length without what the prepare of `launch` claimed; absent: not known
    output_len: I32


@dataclass(frozen=True, slots=True, eq=False)
class Controls:
    """The scheduler carried out a request that concerns the whole server (`Scheduler.pause_generation`,
    `continue_generation`, `flush_cache`, and from 0.5.19 on `record_weight_version_change`)."""

    act: I64  # a `ControlAct`
    # The weights before and after, as indexes into `Run.weight_versions`. Absent except for WEIGHTS.
    weights_before: I64
    weights: I64


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """The final message to a client said that output tokens [start, end) come from these weights
    (from 0.5.19 on; `weight_versions` in `meta_info`)."""

    qid: I64
    weights: I64  # index into `Run.weight_versions`
    start: I64
    end: I64


@dataclass(frozen=True, slots=True, eq=False)
class Gaps:
    """Events are missing here: the recorder dropped them, or a cut left them out."""

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

# The columns that each version added. When an older file is read, these are absent.
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
    """Return the columns that a table had in a format version; none if it did not have the table."""
    later = [added[name] for since, added in ADDED.items() if since > version and name in added]
    if () in later:
        return ()
    missing = {column for columns in later for column in columns}
    return tuple(field.name for field in fields(table) if field.name not in missing)
