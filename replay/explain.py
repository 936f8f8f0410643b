"""Which fix explains a difference: found by toggling fixes and replaying, never by looking it up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .columns.engine import ledger
from .columns.shared import Columns
from .diff import SeriesDiff
from .ledger import Ledger, Series
from .paths.fixes import ALL, rules_of, subsets
from .quantity import Quantity
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
    """The ledgers of every set of fixes near a base, computed when first asked for; `quantities`: of these only."""

    def __init__(self, columns: Columns, quantities: Iterable[Quantity] = Quantity) -> None:
        self._columns, self._quantities = columns, quantities
        self._ledgers: dict[frozenset[int], Ledger] = {}

    def __call__(self, fixes: frozenset[int]) -> Ledger:
        if fixes not in self._ledgers:
            self._ledgers[fixes] = ledger(
                self._columns, rules_of(fixes), str(FixSet(fixes)), self._quantities
            )
        return self._ledgers[fixes]


def explain(toggles: Toggles, difference: SeriesDiff, old: Path, new: Path) -> Explanation:
    """Toggle fixes on the side that is rules until it says what the other side says.

    Between two sets of fixes only those in which they differ are toggled; against any other path any of the five
    may be. Where neither side is rules, each is matched with sets of fixes, cell by cell: toggling from one that
    says what the old side says to one that says what the new side says explains the cell.
    """
    if not isinstance(old, FixSet) and not isinstance(new, FixSet):
        return _explanation(difference, ALL, _Matched(toggles, difference))
    base, target = (old, difference.new) if isinstance(old, FixSet) else (new, difference.old)
    assert isinstance(base, FixSet)
    other = new if base is old else old
    candidates = base.fixes ^ other.fixes if isinstance(other, FixSet) else ALL

    def hits(toggled: frozenset[int]) -> Tensor:
        return _says(toggles(base.fixes ^ toggled), target)

    return _explanation(difference, candidates, hits)


def _explanation(
    difference: SeriesDiff, candidates: frozenset[int], hits: Callable[[frozenset[int]], Tensor]
) -> Explanation:
    """`hits(toggled)`: the cells (bool) that toggling these fixes explains."""
    sets: list[frozenset[int]] = []
    masks: list[Tensor] = []
    for toggled in subsets(candidates):
        hit = difference.differs & hits(toggled)
        for smaller, mask in zip(sets, masks, strict=True):
            if smaller < toggled:
                hit = hit & ~mask
        if hit.any():
            sets.append(toggled)
            masks.append(hit)
    explained = torch.stack(masks).any(dim=0) if masks else torch.zeros_like(difference.differs)
    return Explanation(tuple(sets), tuple(masks), difference.differs & ~explained)


def _says(ledger: Ledger, target: Series) -> Tensor:
    """Cells (bool) where this ledger has the target's value."""
    series = ledger[target.quantity]
    return series.captured & (series.values == target.values).all(dim=1)


class _Matched:
    """Cells explained where neither side is rules."""

    def __init__(self, toggles: Toggles, difference: SeriesDiff) -> None:
        self._nothing = torch.zeros_like(difference.differs)
        some = bool(difference.differs.any())
        self._sets = tuple(subsets(ALL)) if some else ()
        self._old = {fixes: _says(toggles(fixes), difference.old) for fixes in self._sets}
        self._new = {fixes: _says(toggles(fixes), difference.new) for fixes in self._sets}

    def __call__(self, toggled: frozenset[int]) -> Tensor:
        mask = self._nothing.clone()
        for fixes in self._sets:
            mask |= self._old[fixes] & self._new[fixes ^ toggled]
        return mask
