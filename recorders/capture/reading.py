"""How the books of a request and a batch are read: the places of every era, chosen by what the objects have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
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
    """One counter of a request: `fast` runs in C and may raise AttributeError, `safe` then says NONE32."""

    fast: Callable[[Any], int]
    safe: Callable[[Any], int]

    def of(self, req: Any) -> int:
        return self.safe(req)

    def of_all(self, reqs: Iterable[Any]) -> list[int]:
        try:
            return list(map(self.fast, reqs))
        except AttributeError:
            return list(map(self.safe, reqs))


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

    return Counter(attrgetter(f"kv.{name}"), on_kv)


def _first(names: Iterable[str]) -> Callable[[Any], Any]:
    """The first attribute of these names that is there, else None."""

    def read(req: Any) -> Any:
        return next((getattr(req, name) for name in names if hasattr(req, name)), None)

    return read


def _direct(name: str) -> Counter:
    def on_req(req: Any) -> int:
        value: int = getattr(req, name, NONE32)
        return value

    return Counter(attrgetter(name), on_req)


def by_row(columns: Iterable[Iterable[int]]) -> list[int]:
    """Columns as they go on the wire: one request after the other."""
    return list(chain.from_iterable(zip(*columns, strict=True)))


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
    return _MODES.get(getattr(batch.forward_mode, "name", ""), Mode.OTHER)


def reason_of(req: Any) -> int:
    reason = getattr(req, "finished_reason", None)
    return NONE64 if reason is None else REASONS.get(type(reason).__name__, Reason.OTHER)


def is_spec_v2(batch: Any) -> bool:
    """What sglang itself says, up to 0.5.13; later every speculative batch is."""
    said = getattr(batch, "is_spec_v2", None)
    return bool(not batch.spec_algorithm.is_none() if said is None else said)


def device_sum(batch: Any) -> int:
    """sum(batch.seq_lens) where that is on the CPU; on a GPU asking would be a synchronisation."""
    seq_lens = getattr(batch, "seq_lens", None)
    if seq_lens is None or seq_lens.device.type != "cpu":
        return NONE64
    return int(seq_lens.sum())


def on_cpu(tensor: Any) -> bool:
    device = getattr(tensor, "device", None)
    return device is not None and device.type == "cpu"
