"""Find which fixes explain a difference, by toggling fixes and replaying, never from a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .columns.engine import RULED, ledger
from .columns.shared import Columns
from .diff import SeriesDiff
from .ledger import Ledger, Series
from .paths.fixes import ALL, rules_of, subsets
from .quantity import Quantity
from .spec import FixSet, Path


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Which fixes explain the differing cells of one quantity.

    `sets[i]` explains the differing cells at which `masks[i]` (bool, one entry per cell) is True.
    Each set is minimal: toggling it turns one path's value into the other's, and toggling any
    smaller part of it does not. `unexplained` marks the differing cells that no set explains. It
    marks none if the rules do not compute the quantity: nothing can then be said about the fixes.
    """

    sets: tuple[frozenset[int], ...]
    masks: tuple[Tensor, ...]
    unexplained: Tensor

    def of_cell(self, cell: int) -> tuple[frozenset[int], ...]:
        return tuple(fixes for fixes, mask in zip(self.sets, self.masks, strict=True) if mask[cell])

    def like_cell(self, cell: int) -> Tensor:
        """Return the cells explained by one of the sets that explain this cell."""
        return self._cells([bool(mask[cell]) for mask in self.masks])

    def by_fix(self, number: int) -> Tensor:
        """Return the cells explained by some minimal set that contains this fix."""
        return self._cells([number in fixes for fixes in self.sets])

    def by_fix_alone(self, number: int) -> Tensor:
        """Return the cells explained by this fix alone."""
        return self._cells([fixes == {number} for fixes in self.sets])

    def _cells(self, chosen: list[bool]) -> Tensor:
        mask = torch.zeros_like(self.unexplained)
        for wanted, cells in zip(chosen, self.masks, strict=True):
            if wanted:
                mask |= cells
        return mask


class Toggles:
    """The ledgers of sets of fixes, each computed when first requested and only for these `quantities`."""

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
    """Toggle fixes on the side that is a set of fixes until it gives the other side's value.

    If both sides are sets of fixes, only the fixes in which they differ are toggled. If one is
    another kind of path, all five are candidates. If neither side is a set of fixes, each side is
    matched with sets of fixes cell by cell: the fixes to toggle are then those between a set that
    gives the old value and a set that gives the new value.
    """
    places = torch.nonzero(difference.differs).flatten()
    if not len(places) or difference.quantity not in RULED:
        return Explanation((), (), torch.zeros_like(difference.differs))
    if not isinstance(old, FixSet) and not isinstance(new, FixSet):
        return _explanation(difference, places, ALL, _Matched(toggles, difference, places))
    base, target = (old, difference.new) if isinstance(old, FixSet) else (new, difference.old)
    assert isinstance(base, FixSet)
    other = new if base is old else old
    candidates = base.fixes ^ other.fixes if isinstance(other, FixSet) else ALL

    def hits(toggled: frozenset[int]) -> Tensor:
        return _says(toggles(base.fixes ^ toggled)[target.quantity], target, places)

    return _explanation(difference, places, candidates, hits)


def _explanation(
    difference: SeriesDiff,
    places: Tensor,
    candidates: frozenset[int],
    hits: Callable[[frozenset[int]], Tensor],
) -> Explanation:
    """Collect the minimal sets.

    `places` are the differing cells. `hits(toggled)` returns which of them (bool) toggling those
    fixes explains.
    """
    found: dict[frozenset[int], Tensor] = {}
    for toggled in subsets(candidates):
        hit = hits(toggled)
        for smaller, mask in found.items():
            if smaller < toggled:
                hit = hit & ~mask
        if hit.any():
            found[toggled] = hit

    def cells(chosen: Tensor) -> Tensor:
        mask = torch.zeros_like(difference.differs)
        mask[places] = chosen
        return mask

    none = torch.zeros(len(places), dtype=torch.bool)
    explained = torch.stack([none, *found.values()]).any(dim=0)
    return Explanation(tuple(found), tuple(map(cells, found.values())), cells(~explained))


def _says(series: Series, target: Series, places: Tensor) -> Tensor:
    """Return for each of these cells (bool) whether `series` has the target's value."""
    return series.captured[places] & (series.values[places] == target.values[places]).all(dim=1)


class _Matched:
    """Explains cells when neither side is a set of fixes."""

    def __init__(self, toggles: Toggles, difference: SeriesDiff, places: Tensor) -> None:
        # Sets that differ only in fixes of other quantities share one series.
        self._series = {fixes: toggles(fixes)[difference.quantity] for fixes in subsets(ALL)}
        distinct = set(self._series.values())
        self._old = {series: _says(series, difference.old, places) for series in distinct}
        self._new = {series: _says(series, difference.new, places) for series in distinct}

    def __call__(self, toggled: frozenset[int]) -> Tensor:
        series = self._series
        pairs = {(series[fixes], series[fixes ^ toggled]) for fixes in series}
        return torch.stack([self._old[one] & self._new[other] for one, other in pairs]).any(dim=0)
