"""What one path computed: for each quantity, a value per cell and whether there is one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .cells import Cells
from .quantity import Quantity

ROW_PARTS = ("collected", "start", "end")


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One quantity of one path.

    `values`: int64 (cells, parts); one part, but (collected, start, end) for routed rows. None is `NONE64`.
    `captured`: bool (cells,); where False the path has no value, and nothing may be concluded.
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

    def __getitem__(self, quantity: Quantity) -> Series:
        return next(series for series in self.series if series.quantity is quantity)
