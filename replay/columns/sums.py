"""seq_lens_sum of one set of rules: which number, or None, each batch holds after every event that sets or reads it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ...recorders.recording import Recording
from ...recorders.schema import NONE64, Kind, Mode
from ..paths.rules import Rules
from ..tails import tails
from ..tensors import column, nullable
from .lengths import Lengths
from .touches import gaps_before

_KINDS = (Kind.EXTEND, Kind.SEED, Kind.PREPARE, Kind.FILTER, Kind.MERGE, Kind.LAUNCH)


@dataclass(frozen=True, slots=True)
class Sum:
    """A batch's seq_lens_sum: `value` None is sglang's None; not `known`: the recording does not say."""

    value: int | None
    known: bool


UNKNOWN = Sum(None, False)


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """Per event of the recording: the sum after it (NONE64: None), and whether it is known."""

    value: NDArray[np.int64]
    known: NDArray[np.bool_]


def true_sums(recording: Recording, lengths: Lengths) -> Sums:
    """Per event with a batch: the sum of the true lengths of who is in it then.

    At a launch, without the overlap schedule: with what it accepted, as `run_batch` has written that down by its end.
    """
    size = len(recording.events.kind)
    value, known = torch.zeros(size, dtype=torch.int64), torch.ones(size, dtype=torch.int64)
    for kind in _KINDS:
        owner = column(recording.owner(kind))
        event = column(recording.event_of(kind))[owner]
        qid = column(recording.row_table(kind).qid)
        if kind in (Kind.EXTEND, Kind.SEED):
            length = nullable(recording.row_table(kind).seq_len)
            sure = length != NONE64
            length = torch.where(sure, length, 0)
        else:
            late = 1 if kind is Kind.LAUNCH and not recording.run.overlap else 0
            length, sure = lengths.before(qid, event + late, gaps_before(recording, event))
        value.index_add_(0, event, length)
        known.index_put_((event[~sure],), torch.tensor(0))
    return Sums(value.numpy(), known.numpy().astype(bool))


def sums(recording: Recording, true: Sums, rules: Rules) -> Sums:
    """Walk the batches once, in event order. Between events of a batch its sum only changes by these rules."""
    held: dict[int, Sum] = {}
    size = len(recording.events.kind)
    value, known = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=bool)
    step = _Step(recording, true, rules)
    for event in np.flatnonzero(np.isin(recording.events.kind, (*_KINDS, Kind.GAP))).tolist():
        if recording.events.kind[event] == Kind.GAP:
            held.clear()
            continue
        batch, now = step(event, held)
        held[batch] = now
        value[event] = NONE64 if now.value is None else now.value
        known[event] = now.known
    if not recording.run.overlap and not rules.lazy_sums:
        known[:] = False  # before #25879 that was spec v1, which kept other sums
    return Sums(value, known)


def tails_of_launches(recording: Recording) -> NDArray[np.int64]:
    """Per launch: how many were decoded beside its prefill."""
    owner = recording.owner(Kind.LAUNCH)[tails(recording).launched]
    return np.bincount(owner, minlength=len(recording.launches.mode))


class _Step:
    """The rule of one event: which sum its batch holds afterwards."""

    def __init__(self, recording: Recording, true: Sums, rules: Rules) -> None:
        self._recording, self._true, self._lazy = recording, true, rules.lazy_sums
        self._kind, self._ref = recording.events.kind.tolist(), recording.events.ref.tolist()
        self._tails = tails_of_launches(recording)

    def __call__(self, event: int, held: dict[int, Sum]) -> tuple[int, Sum]:
        kind, ref = Kind(self._kind[event]), self._ref[event]
        table = self._recording.event_table(kind)
        batch = int(table.batch[ref])
        before = held.get(batch, UNKNOWN)
        truth = Sum(int(self._true.value[event]), bool(self._true.known[event]))
        if kind in (Kind.EXTEND, Kind.SEED):
            return batch, truth
        if kind is Kind.PREPARE:
            return batch, before if self._lazy else truth
        if kind is Kind.FILTER:
            return batch, self._filter(ref, before, truth)
        if kind is Kind.MERGE:
            return batch, self._merge(before, held.get(int(table.other[ref]), UNKNOWN))
        return batch, self._launch(ref, before, truth)

    def _filter(self, ref: int, before: Sum, truth: Sum) -> Sum:
        """An early return (nobody leaves, or everybody) keeps what was there."""
        size, left = (
            int(self._recording.filters.size_before[ref]),
            int(self._recording.filters.num_rows[ref]),
        )
        if left in (0, size):
            return before
        if size == NONE64:  # who left is not known
            return UNKNOWN
        return Sum(None, True) if self._lazy else truth

    def _merge(self, mine: Sum, other: Sum) -> Sum:
        if self._lazy:
            return Sum(None, True)
        if mine.value is None or other.value is None:
            return UNKNOWN
        return Sum(mine.value + other.value, mine.known and other.known)

    def _launch(self, ref: int, before: Sum, truth: Sum) -> Sum:
        mode = self._recording.launches.mode[ref]
        if mode == Mode.IDLE:
            return Sum(0, True)  # each is made for its launch, with nobody in it
        if mode == Mode.MIXED:
            # Rebuilt whatever the rules: tails are counted with the token that they are about to write.
            written = int(self._tails[ref]) if self._recording.run.overlap else 0
            return Sum((truth.value or 0) + written, truth.known)
        if not self._lazy or mode != Mode.DECODE:
            return before
        run = self._recording.run
        if run.overlap and run.needs_cpu_seq_lens is False:
            return Sum(None, True)  # no backend reads it: #25879 leaves it None
        return truth
