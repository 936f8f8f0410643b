"""What one path computed: for each quantity, a value per cell and whether there is one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .cells import Cells
from .quantity import PARTS, Quantity


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One quantity on one path.

    `values` is int64 of shape (cells, parts). The parts are those of `PARTS`, or one. sglang's None
    is `NONE64`. `captured` is bool of shape (cells,). Where it is False the path has no value, and
    nothing follows from it.
    """

    quantity: Quantity
    cells: Cells
    values: Tensor
    captured: Tensor

    def __post_init__(self) -> None:
        assert len(self.cells) == len(self.values) == len(self.captured)
        assert self.values.ndim == 2


@dataclass(frozen=True, slots=True, eq=False)
class Ledger:
    """The books of one path over one recording."""

    path: str
    series: tuple[Series, ...]
    reasons: Mapping[Quantity, str] = field(default_factory=dict)  # why a quantity was not captured
    unknown: tuple[str, ...] = ()  # global names that a lifted path uses and that have no stand-in

    def only(self, quantities: Collection[Quantity]) -> Ledger:
        """Return the ledger with only these quantities."""
        kept = tuple(series for series in self.series if series.quantity in quantities)
        return replace(self, series=kept)

    def __getitem__(self, quantity: Quantity) -> Series:
        return next(series for series in self.series if series.quantity is quantity)


def nothing(quantity: Quantity, cells: Cells) -> Series:
    """Return the series of a quantity that a path does not compute: no cell is captured."""
    parts = len(PARTS.get(quantity, ("",)))
    values = torch.zeros(len(cells), parts, dtype=torch.int64)
    return Series(quantity, cells, values, torch.zeros(len(cells), dtype=torch.bool))
