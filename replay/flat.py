"""Ledgers as a flat table: one row per cell and part of its value, with a value and a flag for each path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..recorders.recording import Recording
from .columns.shared import Columns
from .explain import Toggles
from .ledger import Ledger
from .quantity import PARTS, Quantity
from .spec import Path
from .verdict import ledger_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..recorders.schema import I64


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """The values of one path.

    `NONE64` is sglang's None. Where `captured` (bool) is False there is no value.
    """

    path: str
    values: I64
    captured: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Flat:
    """One quantity over a recording.

    Every column has one entry per row. Rows are in event order, and the parts of a cell are
    adjacent. `kind` is a `schema.Kind`, `moment` a `cells.Moment`, and `qid` is -1 for a whole
    batch. `part` is an index into `parts`, which is () if values have only one part.
    """

    quantity: Quantity
    parts: tuple[str, ...]
    event: I64
    step: I64
    kind: I64
    moment: I64
    qid: I64
    part: I64
    paths: tuple[Column, ...]


def flat(recording: Recording, paths: Sequence[Path], wanted: Sequence[Quantity]) -> list[Flat]:
    """Compute the ledgers of these paths as tables.

    Raises UsageError or NoVerdictError if a lifted path is not available or cannot run.
    """
    columns = Columns(recording)
    toggles = Toggles(columns, wanted)
    ledgers = [(str(path), ledger_of(columns, toggles, path, wanted)) for path in paths]
    return [_flat(recording, columns, ledgers, quantity) for quantity in wanted]


def _flat(
    recording: Recording,
    columns: Columns,
    ledgers: Sequence[tuple[str, Ledger]],
    quantity: Quantity,
) -> Flat:
    cells, parts = columns.cells[quantity], PARTS.get(quantity, ())
    width = len(parts) or 1

    def repeated(values: torch.Tensor) -> I64:
        return np.repeat(values.numpy(), width)

    event = repeated(cells.event)
    return Flat(
        quantity=quantity,
        parts=parts,
        event=event,
        step=recording.events.iteration[event],
        kind=repeated(cells.kind),
        moment=repeated(cells.moment),
        qid=repeated(cells.qid),
        part=np.tile(np.arange(width), len(cells)),
        paths=tuple(
            Column(name, series.values.numpy().reshape(-1), repeated(series.captured).astype(bool))
            for name, ledger in ledgers
            for series in (ledger[quantity],)
        ),
    )
