"""The law `room`: a verify writes only into slots that its requests have."""

from __future__ import annotations

import torch
from torch import Tensor

from ...recorders.recording import Recording
from ...recorders.schema import Kind, Mode
from ..cells import Moment
from ..columns.lengths import lengths_of
from ..columns.shared import Columns
from ..columns.touches import gaps_before
from ..ledger import Ledger
from ..quantity import Quantity
from ..tensors import column
from .law import Places, no_places, within


def room(columns: Columns, ledger: Ledger) -> Places:
    """True length + stride <= the length that the last prepare allocated.

    Checked for each request of a decode launch. A verify writes the whole stride after the true
    length, including the drafts that will be rejected.
    """
    recording, allocated = columns.recording, ledger[Quantity.KV_ALLOCATED_LEN]
    cells = allocated.cells
    prepared = (cells.kind == Kind.PREPARE) & (cells.moment == Moment.AFTER)
    of_row = torch.nonzero(prepared).flatten()
    of_row = of_row[torch.argsort(cells.row[of_row])]  # one cell per row
    owner = column(recording.owner(Kind.LAUNCH))
    rows = torch.nonzero(column(recording.launches.mode)[owner] == Mode.DECODE).flatten()
    if not len(of_row) or not len(rows):
        return no_places()
    event = column(recording.event_of(Kind.LAUNCH))[owner][rows]
    qid, epoch = column(recording.launch_rows.qid)[rows], gaps_before(recording, event)
    length, known = lengths_of(recording).before(qid, event, epoch)
    stride = _strides(recording)[owner][rows]
    touch = columns.touches.prepare_before(qid, event)
    row = columns.touches.row[touch.clamp(min=0)]
    cell = of_row[torch.where(touch >= 0, row, 0)]  # touch < 0: the prepare is missing, after a gap
    known &= (touch >= 0) & (stride > 0) & allocated.captured[cell]
    known &= columns.touches.epoch[touch.clamp(min=0)] == epoch
    found = (length + stride)[known]
    high = allocated.values[cell[known], 0]
    return within(
        "seq_len + stride", event[known], qid[known], found, torch.zeros_like(found), high
    )


def _strides(recording: Recording) -> Tensor:
    """For each launch, return the tokens per request in its result; 0 if they were not recorded."""
    launches, answered = column(recording.launches.launch), column(recording.results.launch)
    width = column(recording.result_width)
    strides = torch.zeros_like(launches)
    place = torch.searchsorted(launches, answered).clamp(max=max(len(launches) - 1, 0))
    paired = launches[place] == answered
    strides[place[paired]] = width[paired]
    return strides
