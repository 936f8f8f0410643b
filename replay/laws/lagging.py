"""The known violation of `sums` in 0.5.14: its DFLASH deliberately keeps the host's view of the
lengths, which is one step behind the device."""

from __future__ import annotations

import torch
from torch import Tensor

from ...recorders.recording import Recording
from ...recorders.schema import Kind
from ..cells import Moment
from ..columns.shared import Columns
from ..ledger import Ledger
from ..quantity import Quantity
from ..tensors import column
from .law import Places


def lags_on_purpose(columns: Columns, ledger: Ledger, places: Places) -> Tensor:
    """Return which places the known violation explains.

    These are launches whose sum is that of the lengths committed at their prepare, and early-return
    filters that keep such a sum. `FutureMap.resolve_seq_lens_cpu` of 0.5.14 says: "DFLASH keeps
    seq_lens_cpu as the lagging committed host view".
    """
    recording = columns.recording
    observed = ledger.path == "observed"
    # `books` identifies the code: a server run from a commit does not report a release
    version = recording.run.books if observed else ledger.path.removeprefix("sglang==")
    covered = torch.zeros_like(places.event, dtype=torch.bool)
    if version != "0.5.14" or recording.run.spec_algorithm != "DFLASH":
        return covered
    for kind, allowed in (
        (Kind.LAUNCH, _committed(recording, ledger)),
        (Kind.FILTER, _kept(recording, ledger)),
    ):
        events = column(recording.event_of(kind))
        by_event = torch.full((len(recording.events.kind),), -1, dtype=torch.int64)
        by_event[events] = allowed
        covered |= by_event[places.event] == places.found
    return covered


def _committed(recording: Recording, ledger: Ledger) -> Tensor:
    """For each launch, return the sum of the committed lengths at its batch's prepare just before.

    -1 means that there is no such prepare.
    """
    series, prepares = ledger[Quantity.KV_COMMITTED_LEN], recording.prepares
    mine = (series.cells.kind == Kind.PREPARE) & (series.cells.moment == Moment.BEFORE)
    owner = column(recording.owner(Kind.PREPARE))[series.cells.row[mine]]
    sums = torch.zeros(len(prepares.batch), dtype=torch.int64)
    sums.index_add_(0, owner, series.values[mine, 0])
    events, launches = column(recording.event_of(Kind.PREPARE)), recording.launches
    place, found = _last(events, column(recording.event_of(Kind.LAUNCH)))
    found &= _at(column(prepares.batch), place) == column(launches.batch)
    return torch.where(found, _at(sums, place), -1)


def _kept(recording: Recording, ledger: Ledger) -> Tensor:
    """For each early-return filter, return the sum at its batch's last launch, or -1 if there is none."""
    series, filters, launches = ledger[Quantity.SEQ_LENS_SUM], recording.filters, recording.launches
    mine = series.cells.kind == Kind.LAUNCH
    sums = torch.zeros(len(launches.batch), dtype=torch.int64)
    sums[series.cells.row[mine]] = series.values[mine, 0]
    size = len(recording.events.kind) + 1
    key = column(launches.batch) * size + column(recording.event_of(Kind.LAUNCH))
    order = torch.argsort(key)
    wanted = column(filters.batch) * size + column(recording.event_of(Kind.FILTER))
    place, found = _last(key[order], wanted)
    launch = _at(order, place)
    found &= _at(column(launches.batch), launch) == column(filters.batch)
    found &= column(filters.num_rows) == column(filters.size_before)
    return torch.where(found, _at(sums, launch), -1)


def _last(sorted_: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """For each wanted value, return the index of the last smaller entry, and whether there is one."""
    place = torch.searchsorted(sorted_, wanted) - 1
    return place.clamp(min=0), place >= 0


def _at(values: Tensor, place: Tensor) -> Tensor:
    return values[place] if len(values) else torch.full_like(place, -1)
