"""All touches (events that change one request's counters), sorted by request and event, and cut into segments.

A segment begins where the books of a request are set rather than changed:

- at an extend or a seed (to its seq_len),
- at a retract (to zero),
- where a session takes the request's KV,
- at the result of a tail that may or may not have finished the request (the recording ends there).

Touches have no known start, and are not seeded, before a request's first extend or seed in the
recording. The same holds between a gap, a session's save or such a tail and the request's next
extend.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...recorders.recording import Recording
from ...recorders.schema import NONE32, NONE64, Kind
from ..decisions import LOST, decisions
from ..tails import tails
from ..tensors import column

LOST_TAIL = Kind.LAUNCH
"""The kind of a touch by a tail's result if it is unknown whether the result ended the request, and so committed.

A launch itself is never a touch, so its kind is free for this.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Touches:
    """All touches as columns with one entry per touch, int64 unless marked bool."""

    qid: Tensor
    event: Tensor
    kind: Tensor
    row: Tensor  # row of the kind's row table; RETRACT, SESSION_SAVE: its event table; LOST_TAIL: the results
    segment: Tensor
    seeded: Tensor  # bool
    epoch: Tensor  # the number of gaps before the touch
    num_events: int

    def last_before(self, qid: Tensor, event: Tensor) -> Tensor:
        """Return the index of the last touch of `qid` strictly before `event`, or -1."""
        key = self.qid * self.num_events + self.event
        found = torch.searchsorted(key, qid * self.num_events + event) - 1
        return (
            torch.where((found >= 0) & (self.qid[found.clamp(min=0)] == qid), found, -1)
            if len(key)
            else found
        )

    def prepare_before(self, qid: Tensor, event: Tensor) -> Tensor:
        """Return the index of the last PREPARE of `qid` before `event`, or -1.

        If overlap is off for a batch, the previous step's result comes between a prepare and its
        launch.
        """
        prepares = torch.nonzero(self.kind == Kind.PREPARE).flatten()
        if not len(prepares):
            return torch.full_like(qid, -1)
        key = self.qid[prepares] * self.num_events + self.event[prepares]
        found = torch.searchsorted(key, qid * self.num_events + event) - 1
        place = prepares[found.clamp(min=0)]
        return torch.where((found >= 0) & (self.qid[place] == qid), place, -1)

    def at(self, kind: Kind, num_rows: int) -> Tensor:
        """Return for every row of the kind's row table the index of its touch, or -1."""
        index = torch.full((num_rows,), -1)
        mine = torch.nonzero(self.kind == kind).flatten()
        index[self.row[mine]] = mine
        return index


def touches_of(recording: Recording) -> Touches:
    """Collect and sort the touches of a recording and cut them into segments."""
    kinds = (Kind.EXTEND, Kind.SEED, Kind.PREPARE, Kind.RESULT)
    parts = [_rows(recording, kind) for kind in kinds]
    parts += [_singles(recording, kind) for kind in (Kind.RETRACT, Kind.SESSION_SAVE)]
    parts.append(_lost_tails(recording))
    qid, event, kind, row = (torch.cat([part[i] for part in parts]) for i in range(4))
    num_events = len(recording.events.kind) + 1
    order = torch.argsort(qid * num_events + event, stable=True)
    qid, event, kind, row = qid[order], event[order], kind[order], row[order]
    seed = (kind == Kind.EXTEND) | (kind == Kind.SEED) | (kind == Kind.RETRACT)
    first = torch.ones_like(seed)
    first[1:] = qid[1:] != qid[:-1]
    starts = seed | first | (kind == Kind.SESSION_SAVE) | (kind == LOST_TAIL)
    segment = torch.cumsum(starts, 0) - 1
    begins = torch.nonzero(starts).flatten()
    epoch = gaps_before(recording, event)
    seeded = seed[begins][segment] & (epoch == epoch[begins][segment])
    return Touches(qid, event, kind, row, segment, seeded, epoch, num_events)


def gaps_before(recording: Recording, event: Tensor) -> Tensor:
    """Return the number of gaps before each event.

    Knowledge from before a gap does not apply after it.
    """
    return torch.searchsorted(column(recording.event_of(Kind.GAP)), event)


def running(touches: Touches, start: Tensor, delta: Tensor) -> Tensor:
    """Return the value after each touch: `start` of its segment's first touch plus all deltas in the segment so far.

    `start` is read only at the first touch of each segment; the `delta` of that touch is added too.
    """
    if not len(delta):
        return delta
    total = torch.cumsum(delta, 0)
    begins = torch.ones_like(touches.seeded)
    begins[1:] = touches.segment[1:] != touches.segment[:-1]
    at = torch.nonzero(begins).flatten()
    base = start[at] - (total[at] - delta[at])
    return total + base[touches.segment]


def launch_events(recording: Recording) -> Tensor:
    """Return the launch event that each result row answers (NONE64 if the recording does not say)."""
    launches = column(recording.launches.launch)
    answered = column(recording.results.launch)
    if not len(launches):
        return torch.full((len(recording.result_rows.qid),), NONE64)
    place = torch.searchsorted(launches, answered).clamp(max=len(launches) - 1)
    events = column(recording.event_of(Kind.LAUNCH))[place]
    events = torch.where(launches[place] == answered, events, NONE64)
    return events[column(recording.owner(Kind.RESULT))]


def _rows(recording: Recording, kind: Kind) -> list[Tensor]:
    table = recording.row_table(kind)
    rows = torch.arange(len(table.qid))
    if kind is Kind.RESULT:
        known = tails(recording).answered & ~_lost(recording)
        rows = rows[torch.from_numpy((table.accept_len != NONE32) | known)]
    if kind is Kind.SEED:
        rows = rows[torch.from_numpy(table.begins == 1)]
    events = column(recording.event_of(kind))[column(recording.owner(kind))][rows]
    return [column(table.qid)[rows], events, torch.full_like(rows, kind), rows]


def _lost_tails(recording: Recording) -> list[Tensor]:
    """Return the results of tails for which it is unknown whether they ended their request."""
    rows = torch.from_numpy(np.flatnonzero(tails(recording).answered & _lost(recording)))
    events = column(recording.event_of(Kind.RESULT))[column(recording.owner(Kind.RESULT))][rows]
    return [column(recording.result_rows.qid)[rows], events, torch.full_like(rows, LOST_TAIL), rows]


def _lost(recording: Recording) -> NDArray[np.bool_]:
    """Mark the result rows (bool) for which the events that tell whether they ended their request are missing."""
    decided = decisions(recording)
    mask = np.zeros(len(recording.result_rows.qid), dtype=bool)
    mask[decided.row[decided.finish == LOST]] = True
    return mask


def _singles(recording: Recording, kind: Kind) -> list[Tensor]:
    """Return the touches of a kind whose events each concern one request."""
    qid = column(recording.event_table(kind).qid)
    events = column(recording.event_of(kind))
    return [qid, events, torch.full_like(qid, kind), torch.arange(len(qid))]
