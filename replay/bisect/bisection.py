"""`specdiff bisect`: find the change between two ends, and the functions that caused it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..columns.shared import Columns
from ..expected import named
from ..quantity import Quantity
from ..spec import Lifted, Path
from ..verdict import Divergence, ReplayResult, Verdict, compare
from .inside import RoleChange, role_changes
from .judge import Judge
from .line import Change
from .search import Report, Search, search


@dataclass(frozen=True, slots=True)
class Inside:
    """What changed between the last candidate before the change and the first one that shows it."""

    result: ReplayResult
    roles: tuple[RoleChange, ...]  # roles whose code differs; sufficient ones (`alone`) come first

    @property
    def first(self) -> tuple[Quantity, Divergence]:
        return earliest(self.result)


def earliest(result: ReplayResult) -> tuple[Quantity, Divergence]:
    """Return the earliest divergence of a result that has at least one."""
    found = [(one.quantity, one.first) for one in result.quantities if one.first]
    return min(found, key=lambda item: item[1].event)


@dataclass(frozen=True, slots=True)
class Bisection:
    """The result of a bisection: the search and, if a change was found, what is inside it."""

    good: Lifted
    bad: Lifted
    against: str | None  # the path whose books count as good; None: the good end
    quantities: tuple[Quantity, ...]
    num_compared: int  # values compared: between the two sides of the change, else between the ends
    search: Search
    inside: Inside | None  # None: the two ends have the same books


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
    """Find the change between `good` and `bad`, and the roles whose code changed with it.

    `reference` is the path whose books count as good; None means the good end itself.
    `quantities` limits the comparison; None compares all quantities.

    Raises NoVerdictError if an end cannot run or the good end is not good, and UsageError if there
    is nothing to search.
    """
    judge = Judge(columns, reference or good, quantities)
    against = None if judge.reference == good else named(judge.reference, columns.recording)
    found = search(judge, good, bad, report, skip)
    if found.change is None:
        compared = judge.num_compared(bad)
        return Bisection(good, bad, against, judge.quantities, compared, found, None)
    inside = _inside(columns, found.change, judge)
    compared = sum(one.num_compared for one in inside.result.quantities)
    return Bisection(good, bad, against, judge.quantities, compared, found, inside)


def _inside(columns: Columns, change: Change, judge: Judge) -> Inside:
    """Compare the books of the two sides of a change, and find the roles that cause the difference."""
    last, shown = change.last.path, change.shown.path
    result = compare(columns, last, shown, judge.quantities)
    if result.verdict is not Verdict.DIFFERS:  # `last` has no values where `shown` differs
        result = compare(columns, judge.reference, shown, judge.quantities)
    quantity, first = earliest(result)
    roles = role_changes(columns, last, shown, judge.quantities, quantity, first.event)
    return Inside(result, roles)
