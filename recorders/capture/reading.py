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
    """One counter of a request: `fast` reads those of a whole batch and may raise AttributeError, `of` then says NONE32."""

    of: Callable[[Any], int]
    fast: Callable[[Sequence[Any]], list[int]]

    def of_all(self, reqs: Sequence[Any]) -> list[int]:
        try:
            return self.fast(reqs)
        except AttributeError:
            return list(map(self.of, reqs))


@dataclass(frozen=True, slots=True)
class Access:
    """Where this sglang keeps a request's counters."""

    committed: Counter
    allocated: Counter
    accepted: Counter
    verify_ct: Counter
    histogram: Callable[[Any], Sequence[int] | None]  # steps by number of accepted drafts

    @classmethod
    def choose(cls, req: Any) -> Access:
        """By what a request has: on `Req` itself, else on its `kv` (allocated from 0.5.16, committed from 0.5.19)."""
        return cls(
            committed=_length(req, "kv_committed_len"),
            allocated=_length(req, "kv_allocated_len"),
            accepted=_direct(next((name for name in _ACCEPTED if hasattr(req, name)), "")),
            verify_ct=_direct("spec_verify_ct"),
            histogram=_first(_HISTOGRAMS),
        )


def _length(req: Any, name: str) -> Counter:
    if hasattr(req, name):
        return _direct(name)

    def on_kv(req: Any) -> int:
        value: int = getattr(getattr(req, "kv", None), name, NONE32)
        return value

    return Counter(on_kv, every(f"kv.{name}"))


def _first(names: Iterable[str]) -> Callable[[Any], Any]:
    """The first attribute of these names that is there, else None."""

    def read(req: Any) -> Any:
        return next((getattr(req, name) for name in names if hasattr(req, name)), None)

    return read


def _direct(name: str) -> Counter:
    if not name:
        return Counter(lambda req: NONE32, lambda reqs: [NONE32] * len(reqs))

    def on_req(req: Any) -> int:
        value: int = getattr(req, name, NONE32)
        return value

    return Counter(on_req, every(name))


def every(path: str) -> Callable[[Iterable[Any]], list[Any]]:
    """A function that reads an attribute, or one of an attribute, of each: `[one.path for one in them]`.

    Compiled, because the interpreter reads an attribute whose name stands in the code twice as fast as any other way, and a
    step asks a thousand times.
    """
    if not all(name.isidentifier() for name in path.split(".")):
        raise ValueError(f"{path!r} is no attribute")
    read: Callable[[Iterable[Any]], list[Any]] = eval(f"lambda them: [one.{path} for one in them]")
    return read


def int64(value: Any) -> int:
    """An int as it is, anything else (None, a tensor we must not synchronise on) as absent."""
    return int(value) if isinstance(value, int) else NONE64


def drafts_of(scheduler: Any) -> tuple[int, int]:
    """The draft steps and tokens of the worker as it is now: an adaptive one changes them while it runs."""
    worker = getattr(scheduler, "draft_worker", None)
    return (
        int64(getattr(worker, "speculative_num_steps", None)),
        int64(getattr(worker, "speculative_num_draft_tokens", None)),
    )


def batch_accepted(result: Any) -> int:
    for name in _BATCH_ACCEPTED:
        if hasattr(result, name):
            return int64(getattr(result, name))
    return NONE64


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
    return sum(seq_lens.tolist()) if on_cpu(seq_lens) else NONE64


def on_cpu(tensor: Any) -> bool:
    return tensor is not None and tensor.is_cpu
