"""All laws on one ledger."""

from __future__ import annotations

from collections.abc import Collection

import torch

from ...recorders.recording import Recording
from ...recorders.schema import Kind
from ..columns.shared import Columns
from ..ledger import Ledger
from . import commits, room, rows, sessions, statistics, sums
from .law import Breach, Law, Outcome, Places, State

LAWS = (
    Law(
        "commit",
        "after each live result, settled = prompt + outputs - 1",
        (22651, 23456, 28754),
        commits.commit,
    ),
    Law(
        "allocation",
        "allocated >= committed >= 0, and a prepare takes none back",
        (23336, 27731),
        commits.allocation,
    ),
    Law("room", "a verify writes only into slots that were allocated", (23336,), room.room),
    Law("rows", "rows = max(0, stop-aware seqlen - 1 - start_len)", (24851, 26126), rows.rows),
    Law(
        "trainer",
        "rows + start_len + 1 = prompt tokens + returned tokens",
        (24851, 26126),
        rows.trainer,
    ),
    Law(
        "session",
        "a turn inherits only KV that was written, of tokens that were said",
        (22651, 22897, 28754),
        sessions.inherited,
    ),
    Law("stride", "a result is sliced with the stride recorded on it", (23336,), statistics.stride),
    Law("stale", "a stale result leaves the request's books alone", (23456, 28754), commits.stale),
    Law("sums", "seq_lens_sum = sum(seq_lens), or None", (25818, 25879, 26128), sums.sums),
    Law(
        "statistics",
        "sum(hist) = spec_verify_ct and sum(i * hist[i]) = accepted drafts",
        (23530, 23456),
        statistics.histogram,
    ),
    Law(
        "batch-accepted",
        "a batch's count of accepted drafts leaves stale results out",
        (23456,),
        statistics.batch_accepted,
        known="counted in every release; the review comment on #23456 was not taken up",
    ),
)


def check(columns: Columns, ledger: Ledger, silenced: Collection[str] = ()) -> tuple[Outcome, ...]:
    """Every law, in the order of `LAWS`. A silenced law is checked and shown, and not judged."""
    return tuple(
        _outcome(columns.recording, law, law.check(columns, ledger), silenced) for law in LAWS
    )


def _outcome(recording: Recording, law: Law, places: Places, silenced: Collection[str]) -> Outcome:
    broken = torch.nonzero(~places.holds).flatten()
    first = _breach(recording, places, int(broken[0])) if len(broken) else None
    return Outcome(law, _state(law, places, silenced), len(places.event), len(broken), first)


def _state(law: Law, places: Places, silenced: Collection[str]) -> State:
    if not len(places.event):
        return State.NOT_EXERCISED
    if places.holds.all():
        return State.HOLDS
    if law.name in silenced:
        return State.SILENCED
    return State.KNOWN if law.known else State.BROKEN


def _breach(recording: Recording, places: Places, at: int) -> Breach:
    event, qid = int(places.event[at]), int(places.qid[at])
    return Breach(
        event=event,
        kind=Kind(int(recording.events.kind[event])),
        step=int(recording.events.iteration[event]),
        rid=recording.rids[qid] if qid >= 0 else None,
        found=int(places.found[at]),
        low=int(places.low[at]),
        high=int(places.high[at]),
    )
