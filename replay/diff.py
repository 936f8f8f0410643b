"""Compare two ledgers, quantity by quantity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..recorders.recording import Recording
from ..recorders.schema import NONE64, Kind, Mode
from .ledger import Ledger, Series
from .quantity import Quantity
from .tensors import column


@dataclass(frozen=True, slots=True, eq=False)
class SeriesDiff:
    """The comparison of one quantity on two paths, named in `paths`.

    The masks are bool with one entry per cell, and every cell is in exactly one of them. `excused`
    cells have None on one side at a server that needs no sum (#25879). That state is expected and
    is not compared.
    """

    old: Series
    new: Series
    same: Tensor
    differs: Tensor
    not_captured: Tensor
    excused: Tensor
    paths: tuple[str, str]

    def __post_init__(self) -> None:
        count = sum(
            int(mask.sum()) for mask in (self.same, self.differs, self.not_captured, self.excused)
        )
        assert count == len(self.old.cells), "a cell is in no mask or in several"

    @property
    def quantity(self) -> Quantity:
        return self.old.quantity

    @property
    def num_compared(self) -> int:
        return int(self.same.sum()) + int(self.differs.sum())


def diff(recording: Recording, old: Ledger, new: Ledger) -> tuple[SeriesDiff, ...]:
    """Compare every quantity of `old` with that of `new`.

    Both ledgers come from one recording, so their cells match.
    """
    paths = (old.path, new.path)
    return tuple(_diff(recording, series, new[series.quantity], paths) for series in old.series)


def _diff(recording: Recording, old: Series, new: Series, paths: tuple[str, str]) -> SeriesDiff:
    assert torch.equal(old.cells.event, new.cells.event) and torch.equal(
        old.cells.row, new.cells.row
    )
    captured = old.captured & new.captured
    equal = (old.values == new.values).all(dim=1)
    excused = captured & ~equal & _one_sided_none(old, new) & _needs_no_sum(recording, old)
    return SeriesDiff(
        old=old,
        new=new,
        same=captured & equal,
        differs=captured & ~equal & ~excused,
        not_captured=~captured,
        excused=excused,
        paths=paths,
    )


def _one_sided_none(old: Series, new: Series) -> Tensor:
    """Mark the cells where exactly one side is None."""
    none: Tensor = ((old.values == NONE64) ^ (new.values == NONE64)).any(dim=1)
    return none


def _needs_no_sum(recording: Recording, series: Series) -> Tensor:
    """Mark decode launches of a server on which no attention backend reads CPU lengths."""
    cells = series.cells
    if (
        series.quantity is not Quantity.SEQ_LENS_SUM
        or recording.run.needs_cpu_seq_lens is not False
    ):
        return torch.zeros_like(cells.event, dtype=torch.bool)
    launches = cells.kind == Kind.LAUNCH
    decode = column(recording.launches.mode) == Mode.DECODE
    result = torch.zeros_like(launches)
    result[launches] = decode[cells.row[launches]]
    return result
