"""How the books of a request and a batch are read: the places of every era, chosen by what the objects have."""

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
    """One number of a request: `of` reads it. `written` is the same in code over `one`, but may raise AttributeError."""

    of: Callable[[Any], int]
    written: str


Columns = Callable[[Sequence[Any]], Sequence[list[int]]]  # of requests: a list per counter

# `finished()` says the same in every release: `finished_reason is not None`.
_RETRACTED = Counter(lambda one: int(one.is_retracted), "one.is_retracted")
_FINISHED = Counter(
    lambda one: int(one.finished_reason is not None), "one.finished_reason is not None"
)
_OUTPUT_LEN = Counter(lambda one: len(one.output_ids), "len(one.output_ids)")


@dataclass(frozen=True, slots=True)
class Access:
    """Where this sglang keeps a request's counters."""

    committed: Counter
    allocated: Counter
    accepted: Counter
    histogram: Callable[[Any], Sequence[int] | None]  # steps by number of accepted drafts
    lengths: Columns  # committed, allocated
    before_result: Columns  # retracted, finished, committed, output length
    after_result: Columns  # committed, verify count, accepted

    @classmethod
    def choose(cls, req: Any) -> Access:
        """By what a request has: on `Req` itself, else on its `kv` (allocated from 0.5.16, committed from 0.5.19)."""
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
    """The first attribute of these names that is there, else None."""

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


def _together(*counters: Counter) -> Columns:
    fast = every(*(counter.written for counter in counters))

    def read(reqs: Sequence[Any]) -> Sequence[list[int]]:
        try:
            return fast(reqs)
        except AttributeError:
            return [list(map(counter.of, reqs)) for counter in counters]

    return read


def every(*written: str) -> Callable[[Iterable[Any]], Sequence[list[Any]]]:
    """A function that evaluates, of each, each of these expressions over `one`: `([one.a for one in them], ...)`.

    Compiled, because the interpreter reads an attribute whose name stands in the code twice as fast as any other way, and a
    step asks a thousand times. A pass for each: one pass for all is no faster, as what takes time is to get the memory of many
    requests into the caches, and in short loops the processor asks for that of the next request ahead.
    """
    columns = "".join(f"[{expression} for one in them], " for expression in written)
    read: Callable[[Iterable[Any]], Sequence[list[Any]]] = eval(f"lambda them: ({columns})")
    return read


def int64(value: Any) -> int:
    """An int as it is, anything else (None, a tensor we must not synchronise on) as absent."""
    return int(value) if isinstance(value, int) else NONE64


def draft_tokens(worker: Any) -> Any:
    """Of a draft worker as it is now: an adaptive one changes them while it runs."""
    return getattr(worker, "speculative_num_draft_tokens", None)


def draft_steps(worker: Any) -> Any:
    """As `draft_tokens`."""
    return getattr(worker, "speculative_num_steps", None)


def batch_accepted(result: Any) -> Any:
    for name in _BATCH_ACCEPTED:
        if hasattr(result, name):
            return getattr(result, name)
    return None


def mode_of(batch: Any) -> Mode:
    return _MODES.get(getattr(batch.forward_mode, "_name_", ""), Mode.OTHER)  # `name`, but faster


def reason_of(req: Any) -> int:
    reason = getattr(req, "finished_reason", None)
    return NONE64 if reason is None else REASONS.get(type(reason).__name__, Reason.OTHER)


def is_spec_v2(batch: Any) -> bool:
    """What sglang itself says, up to 0.5.13; later every speculative batch is."""
    said = getattr(batch, "is_spec_v2", None)
    return bool(not batch.spec_algorithm.is_none() if said is None else said)


def device_sum(batch: Any) -> int:
    """sum(batch.seq_lens) where that is on the CPU; on a GPU asking would be a synchronisation."""
    seq_lens: Any = getattr(batch, "seq_lens", None)
    return sum(seq_lens.tolist()) if seq_lens is not None and seq_lens.is_cpu else NONE64


def on_cpu(tensor: Any) -> bool:
    return tensor is not None and tensor.is_cpu
