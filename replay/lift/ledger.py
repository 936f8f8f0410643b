"""Turn a lifted replay's tracks into a ledger with the same cells as every other path.

Only this module needs torch.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Hashable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...recorders.schema import Kind
from ..cells import Cells, Moment
from ..columns.committed_len import CommittedWithClaims
from ..columns.shared import Columns
from ..handovers import require_handovers
from ..ledger import Ledger, Series, nothing
from ..quantity import Quantity
from ..spec import Lifted
from .departure import Departure, Expected
from .engine import Watch, replay
from .link import Program
from .open import program_of
from .roles import Role
from .surface import Surface
from .tape import Tape
from .tracks import UNSET, TrackKey, Tracks


def lifted(
    columns: Columns,
    path: Lifted,
    wanted: Sequence[Quantity] = tuple(Quantity),
    replayed: Sequence[Quantity] | None = None,
) -> Ledger:
    """Compute a lifted path's ledger; see `ledger_of`.

    Raises UsageError or NoVerdictError if the source is not available or its program cannot run here.
    """
    return ledger_of(columns, program_of(path), str(path), wanted, replayed)


def expected(ledger: Ledger, quantities: Sequence[Quantity]) -> Expected:
    """Return the values that a `Departure` watches for."""
    return {key: values for quantity in quantities for key, values in _by_row(ledger[quantity])}


def departs_by(
    columns: Columns, program: Program, expected: Expected, event: int
) -> frozenset[Role] | None:
    """Return the roles that were called if the program differs from the expected values, else None.

    It is replayed up to and including this event. None against a number counts.
    """
    seen = Departure(expected, exact=True)
    wanted = {key.quantity for key in expected}
    tracks = _replay(columns, program, wanted, until=event)
    return frozenset(tracks.called) if seen(tracks) else None


def departs(
    columns: Columns, program: Program, expected: Expected, wanted: Sequence[Quantity]
) -> bool:
    """Whether this program differs from the expected values.

    The replay stops at the first value that shows it.

    False only means that no difference was seen. `diff` then decides, with a ledger that is already
    computed.
    """
    seen = Departure(expected)
    key = _key(program.surface, wanted)
    if columns.has_replayed(key):
        return False
    tracks = None
    if columns.workers is not None and columns.workers.wanted == set(wanted):
        seen.found, tracks = columns.workers.departs(program.surface, _tape(columns), expected)
    if tracks is None and not seen.found:
        tracks = _replay(columns, program, wanted, seen)
    if not seen.found:
        columns.replayed(key, lambda: tracks)
    return seen.found


def committed_with_claims(columns: Columns, path: Lifted) -> CommittedWithClaims:
    """Return a lifted path's committed lengths at every touch of a request, extends and retracts included."""
    tracks, touches = _tracks(columns, program_of(path)), columns.touches
    raw, settled = (
        {kind: tracks.values.get(TrackKey(quantity, kind, True), array("q")) for kind in Kind}
        for quantity in (Quantity.KV_COMMITTED_LEN, Quantity.KV_COMMITTED_LEN_SETTLED)
    )
    raws, bare = torch.zeros_like(touches.row), torch.zeros_like(touches.row)
    known = torch.zeros_like(touches.row, dtype=torch.bool)
    for kind in Kind:
        mine = touches.kind == kind
        values, has = _dense(raw[kind], touches.row[mine], 1)
        raws[mine], known[mine] = values[:, 0], has
        bare[mine] = _dense(settled[kind], touches.row[mine], 1)[0][:, 0]
    return CommittedWithClaims(raws, raws - bare, known)


def ledger_of(
    columns: Columns,
    program: Program,
    path: str,
    wanted: Sequence[Quantity] = tuple(Quantity),
    replayed: Sequence[Quantity] | None = None,
) -> Ledger:
    """Compute the ledger of this program for the `wanted` quantities.

    `replayed` lists the quantities that one replay computes, if more of them will be wanted later.
    """
    require_handovers(columns.recording)
    tracks = _tracks(columns, program, replayed or wanted)
    series = tuple(_series(quantity, columns.cells[quantity], tracks) for quantity in wanted)
    return Ledger(path, series, tracks.reasons, program.surface.unknown)


def _tracks(
    columns: Columns, program: Program, wanted: Sequence[Quantity] = tuple(Quantity)
) -> Tracks:
    """Replay the program. Programs with the same code are replayed once, whatever their names are."""
    return columns.replayed(
        _key(program.surface, wanted),
        lambda: _elsewhere(columns, program, wanted) or _replay(columns, program, wanted),
    )


def _elsewhere(columns: Columns, program: Program, wanted: Sequence[Quantity]) -> Tracks | None:
    """Return a worker's tracks of this program, if it replayed it."""
    if columns.workers is None or columns.workers.wanted != set(wanted):
        return None
    return columns.workers.tracks(program.surface, _tape(columns))


def _replay(
    columns: Columns,
    program: Program,
    wanted: Collection[Quantity],
    watch: Watch | None = None,
    until: int | None = None,
) -> Tracks:
    return replay(program, columns.recording, wanted, watch, until, _tape(columns))


def _tape(columns: Columns) -> Tape:
    return columns.replayed("tape", lambda: Tape.of(columns.recording))


def _key(surface: Surface, wanted: Collection[Quantity]) -> Hashable:
    return ("lifted", surface.digest, frozenset(wanted))


def _series(quantity: Quantity, cells: Cells, tracks: Tracks) -> Series:
    """Return the tracks of one quantity as a series."""
    series = nothing(quantity, cells)
    for key, track in tracks.values.items():
        if key.quantity is quantity:
            moment = Moment.AFTER if key.after else Moment.BEFORE
            mine = (cells.kind == key.kind) & (cells.moment == moment)
            values, captured = _dense(track, cells.row[mine], series.values.shape[1])
            series.values[mine], series.captured[mine] = values, captured
    return series


def _dense(track: array[int], rows: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """Return the values noted for these rows, of shape (rows, parts), and for each row whether any were noted."""
    if not track:
        return torch.zeros(len(rows), parts, dtype=torch.int64), torch.zeros(
            len(rows), dtype=torch.bool
        )
    values = torch.frombuffer(track, dtype=torch.int64).reshape(-1, parts)[rows]
    captured = values[:, 0] != UNSET
    values[~captured] = 0
    return values, captured


def _by_row(series: Series) -> Iterator[tuple[TrackKey, NDArray[np.int64]]]:
    """Yield the values of a series as a replay would write them: by track and row."""
    cells, parts = series.cells, series.values.shape[1]
    for kind in Kind:
        for moment in Moment:
            mine = (cells.kind == kind) & (cells.moment == moment) & series.captured
            rows = cells.row[mine].numpy()
            if len(rows):
                by_row = np.full((int(rows.max()) + 1, parts), UNSET, dtype=np.int64)
                by_row[rows] = series.values[mine].numpy()
                yield TrackKey(series.quantity, kind, moment is Moment.AFTER), by_row.reshape(-1)
