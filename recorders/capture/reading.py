"""Read the books of requests and batches.

Where sglang keeps them differs by release. The place is chosen by which attributes an object has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..schema import NONE32, NONE64, REASONS, Mode, Reason

_ACCEPTED = (
    "spec_num_correct_drafts",  # from 0.5.12
    "spec_accepted_drafts",  # 0.5.11
    "spec_accepted_tokens",  # up to 0.5.10.post1
)
_HISTOGRAMS = (
    "spec_correct_drafts_histogram",  # from 0.5.12
    "spec_acceptance_histogram",
)
_BATCH_ACCEPTED = ("num_correct_drafts", "num_accepted_drafts", "num_accepted_tokens")

_MODES = {"EXTEND": Mode.EXTEND, "DECODE": Mode.DECODE, "MIXED": Mode.MIXED, "IDLE": Mode.IDLE}


@dataclass(frozen=True, slots=True)
class Counter:
    """How to read one number of a request.

    `of` is a function that reads it. `written` is a Python expression over `one` that gives the same
    value, but may raise AttributeError.
    """

    of: Callable[[Any], int]
    written: str


BatchReader = Callable[[Sequence[Any]], Sequence[list[int]]]  # requests -> one list per counter

# In every release, `finished()` is `finished_reason is not None`.
_RETRACTED = Counter(lambda one: int(one.is_retracted), "one.is_retracted")
_FINISHED = Counter(
    lambda one: int(one.finished_reason is not None), "one.finished_reason is not None"
)
_OUTPUT_LEN = Counter(lambda one: len(one.output_ids), "len(one.output_ids)")


@dataclass(frozen=True, slots=True)
class Access:
    """How to read a request's counters in this sglang."""

    committed: Counter
    allocated: Counter
    accepted: Counter
    histogram: Callable[[Any], Sequence[int] | None]  # number of steps, by accepted drafts
    lengths: BatchReader  # committed, allocated
    before_result: BatchReader  # retracted, finished, committed, output length
    after_result: BatchReader  # committed, verify count, accepted

    @classmethod
    def choose(cls, req: Any) -> Access:
        """Choose by the attributes of a request.

        The lengths are on `Req` itself, else on its `kv` (allocated from 0.5.16 on, committed from
        0.5.19 on).
        """
        committed, allocated = _length(req, "kv_committed_len"), _length(req, "kv_allocated_len")
        accepted = _direct(next((name for name in _ACCEPTED if hasattr(req, name)), ""))
        return cls(
            committed=committed,
            allocated=allocated,
            accepted=accepted,
            histogram=_first(_HISTOGRAMS),
            lengths=_together(committed, allocated),
            before_result=_together(_RETRACTED, _FINISHED, committed, _OUTPUT_LEN),
            after_result=_together(committed, _direct("spec_verify_ct"), accepted),
        )


def _length(req: Any, name: str) -> Counter:
    if hasattr(req, name):
        return _direct(name)

    def on_kv(req: Any) -> int:
        value: int = getattr(getattr(req, "kv", None), name, NONE32)
        return value

    return Counter(on_kv, f"one.kv.{name}")


def _first(names: Iterable[str]) -> Callable[[Any], Any]:
    """Return a function that reads the first of these attributes that exists, else returns None."""

    def read(req: Any) -> Any:
        return next((getattr(req, name) for name in names if hasattr(req, name)), None)

    return read


def _direct(name: str) -> Counter:
    if not name:
        return Counter(lambda req: NONE32, str(NONE32))

    def on_req(req: Any) -> int:
        value: int = getattr(req, name, NONE32)
        return value

    return Counter(on_req, f"one.{name}")


def _together(*counters: Counter) -> BatchReader:
    fast = every(*(counter.written for counter in counters))

    def read(reqs: Sequence[Any]) -> Sequence[list[int]]:
        try:
            return fast(reqs)
        except AttributeError:
            return [list(map(counter.of, reqs)) for counter in counters]

    return read


def every(*written: str) -> Callable[[Iterable[Any]], Sequence[list[Any]]]:
    """Return a function that evaluates each expression over `one` for each object: `([one.a for one in them], ...)`.

    The function is compiled from text: Python reads an attribute whose name is in the code twice as
    fast as by any other way, and a step reads a thousand attributes.

    There is one loop per expression. A single loop for all is not faster: most of the time goes
    into loading the memory of many requests into the caches, and in short loops the processor
    prefetches the next request.
    """
    columns = "".join(f"[{expression} for one in them], " for expression in written)
    read: Callable[[Iterable[Any]], Sequence[list[Any]]] = eval(f"lambda them: ({columns})")
    return read


def int64(value: Any) -> int:
    """Return an int as it is, and anything else (None, a tensor that we must not sync on) as absent."""
    return int(value) if isinstance(value, int) else NONE64


def draft_tokens(worker: Any) -> Any:
    """Return the worker's current draft length; an adaptive worker changes it while it runs."""
    return getattr(worker, "speculative_num_draft_tokens", None)


def draft_steps(worker: Any) -> Any:
    """Return the worker's current number of draft steps; an adaptive worker changes it, too."""
    return getattr(worker, "speculative_num_steps", None)


def batch_accepted(result: Any) -> Any:
    for name in _BATCH_ACCEPTED:
        if hasattr(result, name):
            return getattr(result, name)
    return None


def mode_of(batch: Any) -> Mode:
    # `_name_` is faster than `name`.
    return _MODES.get(getattr(batch.forward_mode, "_name_", ""), Mode.OTHER)


def reason_of(req: Any) -> int:
    reason = getattr(req, "finished_reason", None)
    return NONE64 if reason is None else REASONS.get(type(reason).__name__, Reason.OTHER)


def is_spec_v2(batch: Any) -> bool:
    """Whether a batch runs spec v2: up to 0.5.13 the batch says so; later every speculative batch does."""
    flag = getattr(batch, "is_spec_v2", None)
    return bool(not batch.spec_algorithm.is_none() if flag is None else flag)


def device_sum(batch: Any) -> int:
    """Return sum(batch.seq_lens) if that is on the CPU, else absent: on a GPU reading it would sync."""
    seq_lens: Any = getattr(batch, "seq_lens", None)
    return sum(seq_lens.tolist()) if seq_lens is not None and seq_lens.is_cpu else NONE64


def on_cpu(tensor: Any) -> bool:
    return tensor is not None and tensor.is_cpu
