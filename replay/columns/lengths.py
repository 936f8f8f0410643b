"""The true sequence length of every request at any event.

It is the seq_len of the request's extend or seed, plus what was accepted since then, plus one for
every step in which the request was decoded beside a prefill chunk. batch.seq_lens holds this value
on the device. It follows from the accepted lengths alone; no observed sum is read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...recorders.recording import Recording
from ...recorders.schema import NONE32, NONE64, Kind, Mode
from ..tails import tails
from ..tensors import column
from .touches import gaps_before


@dataclass(frozen=True, slots=True, eq=False)
class LengthChanges:
    """Changes of length, sorted by request and then by event (int64; `known` is bool)."""

    key: Tensor  # qid * num_events + event
    qid: Tensor
    length: Tensor
    known: Tensor
    epoch: Tensor  # the number of gaps before the last extend or seed
    num_events: int

    def before(self, qid: Tensor, event: Tensor, epoch: Tensor) -> tuple[Tensor, Tensor]:
        """Return the length of `qid` at the start of `event`, and whether it is known.

        `epoch` is the number of gaps before the event.
        """
        if not len(self.key):
            return torch.zeros_like(qid), torch.zeros_like(qid, dtype=torch.bool)
        found = torch.searchsorted(self.key, qid * self.num_events + event) - 1
        place = found.clamp(min=0)
        known = (
            (found >= 0)
            & (self.qid[place] == qid)
            & self.known[place]
            & (self.epoch[place] == epoch)
        )
        return self.length[place], known


def lengths_of(recording: Recording) -> LengthChanges:
    """Collect every change of length in the recording and add them up per request."""
    begins = [_begins(recording, kind) for kind in (Kind.EXTEND, Kind.SEED)]
    begin_qid, begin_event, begin_length = (torch.cat(parts) for parts in zip(*begins, strict=True))
    decode, accepted = _decode_rows(recording)
    launch_event = column(recording.event_of(Kind.LAUNCH))[
        column(recording.owner(Kind.LAUNCH))[decode]
    ]
    qid = torch.cat([begin_qid, column(recording.launch_rows.qid)[decode]])
    event = torch.cat([begin_event, launch_event])
    seed = torch.cat([torch.ones_like(begin_qid), torch.zeros_like(decode)]).bool()
    delta = torch.cat([begin_length, accepted])
    num_events = len(recording.events.kind) + 1
    order = torch.argsort(qid * num_events + event, stable=True)
    qid, event, seed, delta = qid[order], event[order], seed[order], delta[order]
    length, known, first = _run(qid, seed, delta)
    epoch = gaps_before(recording, event)[first]
    return LengthChanges(qid * num_events + event, qid, length, known, epoch, num_events)


def _begins(recording: Recording, kind: Kind) -> tuple[Tensor, Tensor, Tensor]:
    """Return request, event and length of every row of this kind that sets a length."""
    table = recording.row_table(kind)
    rows = torch.arange(len(table.qid))
    if kind is Kind.SEED:
        rows = rows[torch.from_numpy(table.begins == 1)]
    event = column(recording.event_of(kind))[column(recording.owner(kind))]
    return column(table.qid)[rows], event[rows], column(table.seq_len)[rows]


def _run(qid: Tensor, seed: Tensor, delta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sum the deltas in segments that restart at each seed.

    After an unknown delta the sum is unknown until the next seed.

    Returns for each change the sum, whether it is known, and the index of the first change in its
    segment.
    """
    if not len(qid):
        return delta, seed, delta
    begins = seed.clone()
    begins[0] = True
    begins[1:] |= qid[1:] != qid[:-1]
    first = torch.nonzero(begins).flatten()
    segment = torch.cumsum(begins, 0) - 1
    unknown = (delta == NONE64) | (begins & ~seed)
    delta = torch.where(unknown, 0, delta)
    total, lost = torch.cumsum(delta, 0), torch.cumsum(unknown, 0)
    base = (total[first] - delta[first])[segment]
    lost_before = (lost[first] - unknown[first].to(torch.int64))[segment]
    return total - base, lost == lost_before, first[segment]


def _decode_rows(recording: Recording) -> tuple[Tensor, Tensor]:
    """Return the launch rows that lengthen their request, and by how much.

    That is what the row's result accepted (NONE64 if none was recorded), or one for a tail.
    """
    owner = column(recording.owner(Kind.LAUNCH))
    decodes = column(recording.launches.mode)[owner] == Mode.DECODE
    tail = torch.from_numpy(tails(recording).launched)
    rows = torch.nonzero(decodes | tail).flatten()
    return rows, torch.where(tail[rows], 1, _accepted(recording, owner, rows))


def _accepted(recording: Recording, owner: Tensor, rows: Tensor) -> Tensor:
    """Return what the results of these launch rows accepted, NONE64 if that was not recorded."""
    num_requests = len(recording.rids) + 1
    launch = column(recording.launches.launch)[owner[rows]]
    wanted = launch * num_requests + column(recording.launch_rows.qid)[rows]
    result_launch = column(recording.results.launch)[column(recording.owner(Kind.RESULT))]
    accept = column(recording.result_rows.accept_len)
    answered = torch.nonzero((result_launch != NONE64) & (accept != NONE32)).flatten()
    key = result_launch[answered] * num_requests + column(recording.result_rows.qid)[answered]
    if not len(key):
        return torch.full_like(rows, NONE64)
    order = torch.argsort(key)
    key, accept = key[order], accept[answered][order]
    place = torch.searchsorted(key, wanted).clamp(max=len(key) - 1)
    return torch.where(key[place] == wanted, accept[place], NONE64)
