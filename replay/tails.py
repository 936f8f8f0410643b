"""Tails: sglang's name for requests that are decoded beside a prefill chunk, one token each, in an extend's launch.

Under mixed chunk (EAGLE from 0.5.19 on), a running batch is prepared for a decode as usual and then
joins an extend. So a row of an extend's launch is a tail if the request's last event before it was
a prepare and not an extend. No column records this, because it can be derived.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..recorders.recording import Recording
from ..recorders.schema import NONE32, Kind, Mode
from .decisions import launch_events

if TYPE_CHECKING:
    from ..recorders.schema import I64


@dataclass(frozen=True, slots=True, eq=False)
class Tails:
    """Which rows are tails (bool): `launched` marks rows of `launch_rows`, `answered` rows of `result_rows`."""

    launched: NDArray[np.bool_]
    answered: NDArray[np.bool_]


@lru_cache(maxsize=1)  # every path over a recording needs it again
def tails(recording: Recording) -> Tails:
    """Find the tails.

    If a gap hides what came before a launch, its rows are not tails: their lengths are unknown too.
    """
    launches, rows = recording.launches, recording.result_rows
    owner = recording.owner(Kind.LAUNCH)
    launched = np.isin(launches.mode[owner], (Mode.EXTEND, Mode.MIXED))
    answered = rows.accept_len == NONE32
    size = len(recording.events.kind) + 1
    events = recording.event_of(Kind.LAUNCH)[owner[launched]]
    qids = recording.launch_rows.qid[launched].astype(np.int64)
    launched[launched] = _prepared_last(recording, qids, events)
    known = (
        recording.launch_rows.qid.astype(np.int64) * size + recording.event_of(Kind.LAUNCH)[owner]
    )
    wanted = rows.qid.astype(np.int64) * size + launch_events(recording)
    return Tails(launched, answered & np.isin(wanted, known[launched]))


def _prepared_last(recording: Recording, qid: I64, event: I64) -> NDArray[np.bool_]:
    """Whether each request's last event before this one was a prepare and not an extend."""
    size = len(recording.events.kind) + 1
    extends, prepares = (_keys(recording, kind, size) for kind in (Kind.EXTEND, Kind.PREPARE))
    last = _last_before(prepares, qid, event, size)
    gaps = recording.event_of(Kind.GAP)
    whole = np.searchsorted(gaps, last) == np.searchsorted(gaps, event)
    found: NDArray[np.bool_] = (last > _last_before(extends, qid, event, size)) & whole
    return found


def _keys(recording: Recording, kind: Kind, size: int) -> I64:
    """Return request * size + event for every row of the kind, sorted."""
    events = recording.event_of(kind)[recording.owner(kind)]
    return np.sort(recording.row_table(kind).qid.astype(np.int64) * size + events)


def _last_before(keys: I64, qid: I64, event: I64, size: int) -> I64:
    """Return the event of each request's last key before this event, or -1."""
    if not len(keys):
        return np.full(len(qid), -1)
    found = keys[(np.searchsorted(keys, qid * size + event) - 1).clip(0)]
    mine = (found // size == qid) & (found % size < event)
    return np.where(mine, found % size, -1)
