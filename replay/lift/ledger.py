"""The one place where a lifted replay meets torch: its tracks as a ledger on the same cells as every other path."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...recorders.schema import Kind
from ..cells import Cells, Moment
from ..columns.shared import Columns
from ..ledger import PARTS, Ledger, Series
from ..quantity import Quantity
from ..spec import Lifted
from .engine import replay
from .link import Books
from .open import books_of
from .tracks import Place, Tracks


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
    found = [
        (raw[Kind(kind)].get(row), settled[Kind(kind)].get(row))
        for kind, row in zip(touches.kind.tolist(), touches.row.tolist(), strict=True)
    ]
    known = torch.tensor([one is not None for one, _ in found], dtype=torch.bool)
    raws = torch.tensor([0 if one is None else one[0] for one, _ in found], dtype=torch.int64)
    bare = torch.tensor([0 if two is None else two[0] for _, two in found], dtype=torch.int64)
    return Lengths(raws, raws - bare, known)


def ledger_of(columns: Columns, books: Books, path: str) -> Ledger:
    tracks = _tracks(columns, books)
    series = tuple(_series(quantity, columns.cells[quantity], tracks) for quantity in Quantity)
    return Ledger(path, series, tracks.reasons, books.surface.unknown)


def _tracks(columns: Columns, books: Books) -> Tracks:
    """Books that are the same code are replayed once, whatever they are called."""
    return columns.once(("lifted", books.surface.digest), lambda: replay(books, columns.recording))


def _series(quantity: Quantity, cells: Cells, tracks: Tracks) -> Series:
    parts = len(PARTS.get(quantity, ("",)))
    keys = zip(cells.kind.tolist(), cells.moment.tolist(), cells.row.tolist(), strict=True)
    places = {
        (kind, moment): tracks.values.get(Place(quantity, Kind(kind), moment == Moment.AFTER), {})
        for kind in Kind
        for moment in Moment
    }
    values = [places[Kind(kind), Moment(moment)].get(row) for kind, moment, row in keys]
    absent = (0,) * parts
    data = torch.tensor(
        [absent if value is None else value for value in values] or [], dtype=torch.int64
    )
    captured = torch.tensor([value is not None for value in values], dtype=torch.bool)
    return Series(quantity, cells, data.reshape(len(cells), parts), captured)
