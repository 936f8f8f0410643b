"""The law `session`: a turn inherits only KV that was written, for tokens of its conversation."""

from __future__ import annotations

import torch
from torch import Tensor

from ...recorders.recording import Recording
from ...recorders.schema import NONE64, Kind
from ..cells import Moment
from ..columns.lengths import lengths_of
from ..columns.shared import Columns
from ..columns.touches import gaps_before
from ..ledger import Ledger
from ..quantity import Quantity
from ..tensors import column
from .law import Places, within


def inherited(columns: Columns, ledger: Ledger) -> Places:
    """A turn inherits at most the KV that is sound: written, and for tokens of the conversation.

    The inherited length has two limits. The first is what the forwards of the previous turn had
    written when its KV was saved. The second is that turn's prompt plus returned tokens: KV of its
    overshoot belongs to tokens that the next prompt does not contain.

    A prefill writes up to its end. A verify writes the last token before it and the drafts that it
    accepts. So the last token that a turn returns is written only by the next verify, if there is one.
    """
    recording, series = columns.recording, ledger[Quantity.SESSION_COMMITTED]
    cells = series.cells
    at = torch.nonzero(
        (cells.kind == Kind.SESSION_RESTORE)
        & (cells.moment == Moment.AFTER)
        & series.captured
        & (series.values[:, 0] != NONE64)
    ).flatten()
    row, event = cells.row[at], cells.event[at]
    key_len = column(recording.restores.key_len)[row]
    found = torch.minimum(series.values[at, 0], key_len)
    sound, known = _sound(recording, column(recording.restores.session)[row], event)
    at, event, found, sound = at[known], event[known], found[known], sound[known]
    name = series.quantity.value
    return within(name, event, cells.qid[at], found, torch.zeros_like(found), sound)


def _sound(recording: Recording, session: Tensor, event: Tensor) -> tuple[Tensor, Tensor]:
    """For each session, return how many positions are sound, and whether that is known.

    Sound positions were both written and returned by the turn that last saved its KV to the session.
    """
    saves, size = recording.saves, len(recording.events.kind) + 1
    key = column(saves.session) * size + column(recording.event_of(Kind.SESSION_SAVE))
    order = torch.argsort(key)
    if not len(order):
        return torch.zeros_like(event), torch.zeros_like(event, dtype=torch.bool)
    last = order[(torch.searchsorted(key[order], session * size + event) - 1).clamp(min=0)]
    saved = column(recording.event_of(Kind.SESSION_SAVE))[last]
    epoch = gaps_before(recording, saved)
    length, known = lengths_of(recording).before(column(saves.qid)[last], saved, epoch)
    known = known & (column(saves.session)[last] == session) & (saved < event)
    finished, outputs = column(saves.finished_len)[last], column(saves.output_len)[last]
    returned = torch.where(finished == NONE64, outputs, torch.minimum(finished, outputs))
    length = torch.minimum(length, column(saves.origin_len)[last] + returned)
    return length, known & (epoch == gaps_before(recording, event))
