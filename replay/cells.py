"""The cells of each quantity: every (event, request, moment) at which it has a value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from ..recorders.recording import Recording
from ..recorders.schema import NONE32, ROW_TABLES, Kind
from .decisions import decisions
from .quantity import Quantity
from .tails import tails
from .tensors import column, empty


class Moment(IntEnum):
    """Whether a value is taken before or after its event."""

    BEFORE = 0
    AFTER = 1


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Where a quantity has a value, in event order. Every column is int64 with one entry per cell.

    `event` is the index in the event order. `row` is the row in the kind's row table, or in its
    event table if the event concerns one request or a whole batch. `qid` is the request, or -1 for
    a whole batch.
    """

    event: Tensor
    kind: Tensor
    moment: Tensor
    row: Tensor
    qid: Tensor

    def __len__(self) -> int:
        return len(self.event)


def cells_of(recording: Recording, quantity: Quantity) -> Cells:
    """Return every cell that this quantity has in this recording.

    The cells do not depend on the path.
    """
    parts = [_part(recording, kind, moment, quantity) for kind, moment in _MOMENTS[quantity]]
    whole = [torch.cat([part[i] for part in parts]) for i in range(5)]
    order = torch.argsort(whole[0] * 2 + whole[2], stable=True)
    return Cells(*(values[order] for values in whole))


_COMMITTED = (
    (Kind.PREPARE, Moment.BEFORE),
    (Kind.PREPARE, Moment.AFTER),
    (Kind.RESULT, Moment.BEFORE),
    (Kind.RESULT, Moment.AFTER),
    (Kind.FINISH, Moment.BEFORE),
)
_SUMS = ((Kind.FILTER, Moment.AFTER), (Kind.MERGE, Moment.AFTER), (Kind.LAUNCH, Moment.AFTER))
_ALLOCATED = (
    (Kind.PREPARE, Moment.BEFORE),
    (Kind.PREPARE, Moment.AFTER),
    (Kind.FINISH, Moment.BEFORE),
    (Kind.RELEASE, Moment.BEFORE),
)
_FINISH = ((Kind.FINISH, Moment.BEFORE),)
_RESULT = ((Kind.RESULT, Moment.AFTER),)

_MOMENTS: dict[Quantity, tuple[tuple[Kind, Moment], ...]] = {
    Quantity.KV_COMMITTED_LEN: _COMMITTED,
    Quantity.KV_COMMITTED_LEN_SETTLED: _COMMITTED,
    Quantity.KV_ALLOCATED_LEN: _ALLOCATED,
    Quantity.SEQ_LENS_SUM: _SUMS,
    Quantity.ROUTED_EXPERTS: _FINISH,
    Quantity.INDEXER_TOPK: _FINISH,
    Quantity.SPEC_VERIFY_CT: _RESULT,
    Quantity.SPEC_ACCEPTED_DRAFTS: _RESULT,
    Quantity.SPEC_HISTOGRAM: _FINISH,
    Quantity.FINISH: _RESULT,
    Quantity.RELEASED_LEN: ((Kind.RELEASE, Moment.AFTER),),
    Quantity.SESSION_COMMITTED: (
        (Kind.SESSION_SAVE, Moment.AFTER),
        (Kind.SESSION_RESTORE, Moment.AFTER),
    ),
}


_OF_ITS_OWN = (Quantity.SEQ_LENS_SUM, Quantity.FINISH)  # one per batch; one per finish decision


def same_cells(one: Quantity, other: Quantity) -> bool:
    """Whether both quantities have values at the same places of any recording."""
    if one in _OF_ITS_OWN or other in _OF_ITS_OWN:
        return one is other
    return _MOMENTS[one] == _MOMENTS[other]


def at_same_places(quantities: Iterable[Quantity]) -> list[tuple[Quantity, ...]]:
    """Group the quantities that have values at the same places."""
    groups: list[tuple[Quantity, ...]] = []
    for quantity in quantities:
        like = next((i for i, some in enumerate(groups) if same_cells(some[0], quantity)), None)
        if like is None:
            groups.append((quantity,))
        else:
            groups[like] += (quantity,)
    return groups


def _part(recording: Recording, kind: Kind, moment: Moment, quantity: Quantity) -> list[Tensor]:
    """Return event, kind, moment, row and qid of the cells of one kind."""
    table = recording.event_table(kind)
    events = column(recording.event_of(kind))
    if quantity is Quantity.SEQ_LENS_SUM:
        rows, qid = torch.arange(len(events)), torch.full((len(events),), -1)
    elif kind not in ROW_TABLES:
        rows, qid = torch.arange(len(events)), column(table.qid)
    else:
        rows, qid = _request_rows(recording, kind, quantity)
        owner = column(recording.owner(kind))
        events = events[owner[rows]] if len(rows) else empty()
    return [events, torch.full_like(events, kind), torch.full_like(events, moment), rows, qid]


def _request_rows(recording: Recording, kind: Kind, quantity: Quantity) -> tuple[Tensor, Tensor]:
    table = recording.row_table(kind)
    qid = column(table.qid)
    if quantity is Quantity.FINISH:
        rows = column(decisions(recording).row)
        return rows, qid[rows]
    if kind is not Kind.RESULT:
        return torch.arange(len(qid)), qid
    # Nothing is resolved for an extend's result, except for requests decoded beside it (tails).
    resolved = (table.accept_len != NONE32) | tails(recording).answered
    rows = torch.from_numpy(np.flatnonzero(resolved))
    return rows, qid[rows]
