"""The one place where a lifted replay meets torch: its tracks as a ledger on the same cells as every other path."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...recorders.schema import Kind
from ..cells import Cells, Moment
from ..columns.shared import Columns
from ..ledger import Ledger, Series, nothing
from ..quantity import Quantity
from ..seeds import require_seeds
from ..spec import Lifted
from .departure import Departure, Expected
from .engine import Watch, replay
from .link import Books
from .open import books_of
from .surface import Surface
from .tape import Tape
from .tracks import UNSET, Place, Tracks


def lifted(
    columns: Columns,
    path: Lifted,
    wanted: Sequence[Quantity] = tuple(Quantity),
    replayed: Sequence[Quantity] | None = None,
) -> Ledger:
    """As `ledger_of`. Raises UsageError or NoVerdictError where the source cannot be had, or its books cannot run here."""
    return ledger_of(columns, books_of(path), str(path), wanted, replayed)


def expected(ledger: Ledger, quantities: Sequence[Quantity]) -> Expected:
    """What a `Departure` watches for."""
    return {place: values for quantity in quantities for place, values in _by_row(ledger[quantity])}


def departs_by(columns: Columns, books: Books, expected: Expected, event: int) -> bool:
    """Whether these books depart from what is expected, up to and with this event; None against a number counts."""
    seen = Departure(expected, exact=True)
    wanted = {place.quantity for place in expected}
    return seen(_replay(columns, books, wanted, until=event))


def departs(columns: Columns, books: Books, expected: Expected, wanted: Sequence[Quantity]) -> bool:
    """Whether these books depart from what is expected, replayed no further than the first value that shows it.

    False only says that nothing has been seen: `diff` has the last word, over a ledger that costs nothing any more.
    """
    seen = Departure(expected)
    key = _key(books.surface, wanted)
    if columns.has_replayed(key):
        return False
    tracks = None
    if columns.crew is not None and columns.crew.wanted == set(wanted):
        seen.found, tracks = columns.crew.departs(books.surface, _tape(columns), expected)
    if tracks is None and not seen.found:
        tracks = _replay(columns, books, wanted, seen)
    if not seen.found:
        columns.replayed(key, lambda: tracks)
    return seen.found


@dataclass(frozen=True, slots=True, eq=False)
class Lengths:
    """Per touch, after it: the committed length and its open claims (int64), and whether they are known (bool)."""

    raw: Tensor
    claims: Tensor
    known: Tensor


def lengths(columns: Columns, path: Lifted) -> Lengths:
    """The committed lengths of a lifted path where a request's life is told, extends and retracts included."""
    tracks, touches = _tracks(columns, books_of(path)), columns.touches
    raw, settled = (
        {kind: tracks.values.get(Place(quantity, kind, True), array("q")) for kind in Kind}
        for quantity in (Quantity.KV_COMMITTED_LEN, Quantity.KV_COMMITTED_LEN_SETTLED)
    )
    raws, bare = torch.zeros_like(touches.row), torch.zeros_like(touches.row)
    known = torch.zeros_like(touches.row, dtype=torch.bool)
    for kind in Kind:
        mine = touches.kind == kind
        values, has = _dense(raw[kind], touches.row[mine], 1)
        raws[mine], known[mine] = values[:, 0], has
        bare[mine] = _dense(settled[kind], touches.row[mine], 1)[0][:, 0]
    return Lengths(raws, raws - bare, known)


def ledger_of(
    columns: Columns,
    books: Books,
    path: str,
    wanted: Sequence[Quantity] = tuple(Quantity),
    replayed: Sequence[Quantity] | None = None,
) -> Ledger:
    """`wanted`: of these quantities only. `replayed`: what one replay notes, if more will be wanted of it."""
    require_seeds(columns.recording)
    tracks = _tracks(columns, books, replayed or wanted)
    series = tuple(_series(quantity, columns.cells[quantity], tracks) for quantity in wanted)
    return Ledger(path, series, tracks.reasons, books.surface.unknown)


def _tracks(columns: Columns, books: Books, wanted: Sequence[Quantity] = tuple(Quantity)) -> Tracks:
    """Books that are the same code are replayed once, whatever they are called."""
    return columns.replayed(
        _key(books.surface, wanted),
        lambda: _elsewhere(columns, books, wanted) or _replay(columns, books, wanted),
    )


def _elsewhere(columns: Columns, books: Books, wanted: Sequence[Quantity]) -> Tracks | None:
    if columns.crew is None or columns.crew.wanted != set(wanted):
        return None
    return columns.crew.tracks(books.surface, _tape(columns))


def _replay(
    columns: Columns,
    books: Books,
    wanted: Collection[Quantity],
    watch: Watch | None = None,
    until: int | None = None,
) -> Tracks:
    return replay(books, columns.recording, wanted, watch, until, _tape(columns))


def _tape(columns: Columns) -> Tape:
    return columns.replayed("tape", lambda: Tape.of(columns.recording))


def _key(surface: Surface, wanted: Collection[Quantity]) -> Hashable:
    return ("lifted", surface.digest, frozenset(wanted))


def _series(quantity: Quantity, cells: Cells, tracks: Tracks) -> Series:
    made = nothing(quantity, cells)
    for place, track in tracks.values.items():
        if place.quantity is quantity:
            moment = Moment.AFTER if place.after else Moment.BEFORE
            mine = (cells.kind == place.kind) & (cells.moment == moment)
            values, captured = _dense(track, cells.row[mine], made.values.shape[1])
            made.values[mine], made.captured[mine] = values, captured
    return made


def _dense(track: array[int], rows: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """What was noted for each of these rows, (rows, parts), and whether anything was."""
    if not track:
        return torch.zeros(len(rows), parts, dtype=torch.int64), torch.zeros(
            len(rows), dtype=torch.bool
        )
    noted = torch.frombuffer(track, dtype=torch.int64).reshape(-1, parts)[rows]
    captured = noted[:, 0] != UNSET
    noted[~captured] = 0
    return noted, captured


def _by_row(series: Series) -> Iterator[tuple[Place, NDArray[np.int64]]]:
    cells, parts = series.cells, series.values.shape[1]
    for kind in Kind:
        for moment in Moment:
            mine = (cells.kind == kind) & (cells.moment == moment) & series.captured
            rows = cells.row[mine].numpy()
            if len(rows):
                by_row = np.full((int(rows.max()) + 1, parts), UNSET, dtype=np.int64)
                by_row[rows] = series.values[mine].numpy()
                yield Place(series.quantity, kind, moment is Moment.AFTER), by_row.reshape(-1)
