"""Compute seq_lens_sum under one set of rules: the number, or None, that each batch holds after each relevant event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ...recorders.recording import Recording
from ...recorders.schema import NONE64, Kind, Mode
from ..paths.rules import Rules
from ..tails import tails
from ..tensors import column, nullable
from .lengths import LengthChanges
from .touches import gaps_before

_KINDS = (Kind.EXTEND, Kind.SEED, Kind.PREPARE, Kind.FILTER, Kind.MERGE, Kind.LAUNCH)


class Sum(NamedTuple):
    """A batch's seq_lens_sum.

    A `value` of None is sglang's None. If `known` is False, the recording does not say.
    """

    value: int | None
    known: bool


UNKNOWN = Sum(None, False)


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """The sum after each event of the recording (NONE64 for None), and whether it is known."""

    value: NDArray[np.int64]
    known: NDArray[np.bool_]


def true_sums(recording: Recording, lengths: LengthChanges) -> Sums:
    """Return for each event with a batch the sum of the true lengths of the requests in it.

    Without the overlap schedule, the sum at a launch includes what that launch accepted, because
    `run_batch` has already stored it when it returns.
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
    """Walk through the batches in event order.

    Between its events, a batch's sum does not change under these rules.
    """
    events = recording.events
    value = np.zeros(len(events.kind), dtype=np.int64)
    known = np.zeros(len(events.kind), dtype=bool)
    at = np.flatnonzero(np.isin(events.kind, (*_KINDS, Kind.GAP)))
    columns = (at, events.kind[at], events.ref[at], true.value[at], true.known[at])
    batches = _Batches(recording, rules)
    for event, kind, ref, *truth in zip(*(values.tolist() for values in columns), strict=True):
        now = batches.after(kind, ref, Sum(*truth))
        value[event] = NONE64 if now.value is None else now.value
        known[event] = now.known
    if not recording.run.overlap and not rules.lazy_sums:
        known[:] = False  # before #25879, no overlap meant spec v1, which kept different sums
    return Sums(value, known)


def tails_of_launches(recording: Recording) -> NDArray[np.int64]:
    """Return for each launch how many requests were decoded beside its prefill."""
    owner = recording.owner(Kind.LAUNCH)[tails(recording).launched]
    return np.bincount(owner, minlength=len(recording.launches.mode))


class _Batches:
    """The sum that each batch holds, and the rule for each kind of event.

    Lists, because events are read one at a time.
    """

    def __init__(self, recording: Recording, rules: Rules) -> None:
        self._held: dict[int, Sum] = {}
        self._lazy, run = rules.lazy_sums, recording.run
        self._batch: dict[int, list[int]] = {
            kind: recording.event_table(kind).batch.tolist() for kind in _KINDS
        }
        self._rules: dict[int, Callable[[int, Sum, Sum], Sum]] = {
            Kind.EXTEND: self._begin,
            Kind.SEED: self._begin,
            Kind.PREPARE: self._prepare,
            Kind.FILTER: self._filter,
            Kind.MERGE: self._merge,
            Kind.LAUNCH: self._launch,
        }
        self._size, self._left = (
            recording.filters.size_before.tolist(),
            recording.filters.num_rows.tolist(),
        )
        self._other = recording.merges.other.tolist()
        self._idle, self._mixed, self._decode = (
            (recording.launches.mode == mode).tolist()
            for mode in (Mode.IDLE, Mode.MIXED, Mode.DECODE)
        )
        # Tails are counted with the token that they are about to write.
        written = tails_of_launches(recording)
        self._written = (written if run.overlap else np.zeros_like(written)).tolist()
        # No backend reads the sum, so #25879 leaves it None.
        self._unread = run.overlap and run.needs_cpu_seq_lens is False

    def after(self, kind: int, ref: int, truth: Sum) -> Sum:
        """Return the sum of the event's batch after the event.

        `truth` is the true sum. A gap makes all sums unknown.
        """
        rule = self._rules.get(kind)
        if rule is None:
            self._held.clear()
            return Sum(0, False)
        batch = self._batch[kind][ref]
        now = self._held[batch] = rule(ref, self._held.get(batch, UNKNOWN), truth)
        return now

    def _begin(self, _ref: int, _before: Sum, truth: Sum) -> Sum:
        return truth

    def _prepare(self, _ref: int, before: Sum, truth: Sum) -> Sum:
        return before if self._lazy else truth

    def _filter(self, ref: int, before: Sum, truth: Sum) -> Sum:
        """An early return (no request leaves, or all of them) keeps the existing sum."""
        size, left = self._size[ref], self._left[ref]
        if left in (0, size):
            return before
        if size == NONE64:  # unknown which requests left
            return UNKNOWN
        return Sum(None, True) if self._lazy else truth

    def _merge(self, ref: int, mine: Sum, _truth: Sum) -> Sum:
        if self._lazy:
            return Sum(None, True)
        other = self._held.get(self._other[ref], UNKNOWN)
        if mine.value is None or other.value is None:
            return UNKNOWN
        return Sum(mine.value + other.value, mine.known and other.known)

    def _launch(self, ref: int, before: Sum, truth: Sum) -> Sum:
        if self._idle[ref]:
            return Sum(0, True)  # each idle batch is new and has no requests
        if self._mixed[ref]:  # rebuilt under all rules
            return Sum((truth.value or 0) + self._written[ref], truth.known)
        if not self._lazy or not self._decode[ref]:
            return before
        return Sum(None, True) if self._unread else truth
