"""The one place where a lifted replay meets torch: its tracks as a ledger on the same cells as every other path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...recorders.schema import Kind
from ..cells import Cells, Moment
from ..columns.shared import Columns
from ..ledger import Ledger, Series, nothing
from ..quantity import Quantity
from ..seeds import require_seeds
from ..spec import Lifted
from .engine import replay
from .link import Books
from .open import books_of
from .tracks import Place, Tracks, Value


def lifted(columns: Columns, path: Lifted) -> Ledger:
    """Raises UsageError or NoVerdictError where the source cannot be had, or its books cannot run here."""
    return ledger_of(columns, books_of(path), str(path))


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
        {kind: tracks.values.get(Place(quantity, kind, True), {}) for kind in Kind}
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


def ledger_of(columns: Columns, books: Books, path: str) -> Ledger:
    require_seeds(columns.recording)
    tracks = _tracks(columns, books)
    series = tuple(_series(quantity, columns.cells[quantity], tracks) for quantity in Quantity)
    return Ledger(path, series, tracks.reasons, books.surface.unknown)


def _tracks(columns: Columns, books: Books) -> Tracks:
    """Books that are the same code are replayed once, whatever they are called."""
    return columns.once(("lifted", books.surface.digest), lambda: replay(books, columns.recording))


def _series(quantity: Quantity, cells: Cells, tracks: Tracks) -> Series:
    made = nothing(quantity, cells)
    for place, track in tracks.values.items():
        if place.quantity is quantity:
            moment = Moment.AFTER if place.after else Moment.BEFORE
            mine = (cells.kind == place.kind) & (cells.moment == moment)
            values, captured = _dense(track, cells.row[mine], made.values.shape[1])
            made.values[mine], made.captured[mine] = values, captured
    return made


def _dense(track: Mapping[int, Value], rows: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """What was noted for each of these rows, (rows, parts), and whether anything was."""
    size = max(max(track, default=0), int(rows.max()) if len(rows) else 0) + 1
    values = torch.zeros(size, parts, dtype=torch.int64)
    captured = torch.zeros(size, dtype=torch.bool)
    at = torch.tensor(list(track), dtype=torch.int64)
    noted = torch.tensor(list(track.values()), dtype=torch.int64)
    values[at], captured[at] = noted.reshape(len(track), parts), True
    return values[rows], captured[rows]
