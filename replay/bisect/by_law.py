"""`--law` of bisect and history: which version's scheduler breaks a law, or keeps it, where it plays a scenario."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..laws.law import Law
from ..spec import Lifted
from .judge import Judged
from .law_court import LawCourt, check_known
from .plays import Plays
from .search import Report, Search, check, judged, search


@dataclass(frozen=True, slots=True)
class LawBisection:
    good: Lifted
    bad: Lifted
    law: Law
    search: Search


def bisect_by_law(
    plays: Plays, law: Law, good: Lifted, bad: Lifted, *, skip: Sequence[str], report: Report
) -> LawBisection:
    """Raises NoVerdictError where an end is not what it is said to be or cannot play it, UsageError where there is nothing
    to search."""
    check(good, bad, skip)
    for end in (good, bad):
        check_known(end)
    court = LawCourt(law, plays)
    court.ahead((good, bad))
    return LawBisection(good, bad, law, search(court, good, bad, report, skip))


def history_by_law(
    plays: Plays, law: Law, paths: Sequence[Lifted], told: Callable[[Judged], None]
) -> tuple[Judged, ...]:
    """Every one of them. `told` hears of each as it is judged."""
    for end in (paths[0], paths[-1]):
        check_known(end)
    court, found = LawCourt(law, plays), []
    court.ahead(paths)
    for path in paths:
        found.append(judged(court, path))
        told(found[-1])
    return tuple(found)
