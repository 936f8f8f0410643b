"""`specdiff bisect`: the first change between two ends, and what is inside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..columns.shared import Columns
from ..quantity import Quantity
from ..spec import Lifted, Path
from ..verdict import Divergence, Result, Verdict, compare
from .inside import RoleChange, role_changes
from .judge import Judge
from .line import Change
from .search import Report, Search, search


@dataclass(frozen=True, slots=True)
class Inside:
    """The change itself, between the last candidate before it and the first that shows it."""

    result: Result
    roles: tuple[RoleChange, ...]  # whose code differs; those that bring it about alone come first

    @property
    def first(self) -> tuple[Quantity, Divergence]:
        return earliest(self.result)


def earliest(result: Result) -> tuple[Quantity, Divergence]:
    """The earliest divergence of a result that has some."""
    found = [(one.quantity, one.first) for one in result.quantities if one.first]
    return min(found, key=lambda item: item[1].event)


@dataclass(frozen=True, slots=True)
class Bisection:
    good: Lifted
    bad: Lifted
    quantities: tuple[Quantity, ...]
    num_compared: int  # between the ends, or where they differ between the two sides of the change
    search: Search
    inside: Inside | None  # None: the ends say the same


def bisect(
    columns: Columns,
    good: Lifted,
    bad: Lifted,
    *,
    quantities: Sequence[Quantity] | None,
    reference: Path | None,
    skip: Sequence[str],
    report: Report,
) -> Bisection:
    """`reference`: whose books are the good ones; the good end's own where it is None. `quantities`: None for all.

    Raises NoVerdictError where an end is not what it is said to be or cannot run, UsageError where there is nothing
    to search.
    """
    judge = Judge(columns, reference or good, quantities)
    found = search(judge, good, bad, report, skip)
    if found.change is None:
        return Bisection(good, bad, judge.quantities, judge.num_compared(bad), found, None)
    inside = _inside(columns, found.change, judge)
    compared = sum(one.num_compared for one in inside.result.quantities)
    return Bisection(good, bad, judge.quantities, compared, found, inside)


def _inside(columns: Columns, change: Change, judge: Judge) -> Inside:
    last, shown = change.last.path, change.shown.path
    result = compare(columns, last, shown, judge.quantities)
    if result.verdict is not Verdict.DIFFERS:  # `last` has no value at all where it shows
        result = compare(columns, judge.reference, shown, judge.quantities)
    quantity, first = earliest(result)
    roles = role_changes(columns, last, shown, judge.quantities, quantity, first.event)
    return Inside(result, roles)
