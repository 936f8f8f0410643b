"""Which fix explains a difference: found by toggling fixes and replaying, never by looking it up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .columns.engine import ledger
from .columns.shared import Columns
from .diff import SeriesDiff
from .ledger import Ledger
from .paths.fixes import ALL, rules_of, subsets
from .spec import FixSet, Path


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Of one quantity: `sets[i]` explains the differing cells where `masks[i]` (bool, per cell) holds.

    A set is minimal: toggling it, and no smaller part of it, turns the one path's value into the other's.
    """

    sets: tuple[frozenset[int], ...]
    masks: tuple[Tensor, ...]
    unexplained: Tensor

    def of_cell(self, cell: int) -> tuple[frozenset[int], ...]:
        return tuple(fixes for fixes, mask in zip(self.sets, self.masks, strict=True) if mask[cell])

    def by_fix(self, number: int) -> Tensor:
        """Cells that some minimal set with this fix explains."""
        return self._cells([number in fixes for fixes in self.sets])

    def by_fix_alone(self, number: int) -> Tensor:
        """Cells that this fix explains by itself."""
        return self._cells([fixes == {number} for fixes in self.sets])

    def _cells(self, chosen: list[bool]) -> Tensor:
        mask = torch.zeros_like(self.unexplained)
        for wanted, cells in zip(chosen, self.masks, strict=True):
            if wanted:
                mask |= cells
        return mask


class Toggles:
    """The ledgers of every set of fixes near a base, computed when first asked for."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._ledgers: dict[frozenset[int], Ledger] = {}

    def __call__(self, fixes: frozenset[int]) -> Ledger:
        if fixes not in self._ledgers:
            self._ledgers[fixes] = ledger(self._columns, rules_of(fixes), str(FixSet(fixes)))
        return self._ledgers[fixes]


def explain(toggles: Toggles, difference: SeriesDiff, old: Path, new: Path) -> Explanation:
    """Toggle fixes on the side that is rules until it says what the other side says.

    Between two sets of fixes only those in which they differ are toggled; against `observed` any of the five may be.
    Two paths that are not rules (there is one only) leave everything unexplained.
    """
    base, target = (old, difference.new) if isinstance(old, FixSet) else (new, difference.old)
    if not isinstance(base, FixSet):
        return Explanation((), (), difference.differs)
    other = new if base is old else old
    candidates = base.fixes ^ other.fixes if isinstance(other, FixSet) else ALL
    sets: list[frozenset[int]] = []
    masks: list[Tensor] = []
    for toggled in subsets(candidates):
        series = toggles(base.fixes ^ toggled)[difference.quantity]
        hit = difference.differs & series.captured & (series.values == target.values).all(dim=1)
        for smaller, mask in zip(sets, masks, strict=True):
            if smaller < toggled:
                hit = hit & ~mask
        if hit.any():
            sets.append(toggled)
            masks.append(hit)
    explained = torch.stack(masks).any(dim=0) if masks else torch.zeros_like(difference.differs)
    return Explanation(tuple(sets), tuple(masks), difference.differs & ~explained)
