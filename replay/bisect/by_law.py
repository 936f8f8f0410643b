"""`bisect --law` and `history --law`: judge versions by whether their scheduler keeps a law.

Each version's real scheduler plays the same scenario; the law is checked on what it recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..laws.law import Law
from ..spec import Lifted
from .judge import JudgedCandidate
from .law_judge import LawJudge, check_known
from .plays import Plays
from .search import Report, Search, check, judge_or_skip, search


@dataclass(frozen=True, slots=True)
class LawBisection:
    """The result of a bisection by a law."""

    good: Lifted
    bad: Lifted
    law: Law
    search: Search


def bisect_by_law(
    plays: Plays, law: Law, good: Lifted, bad: Lifted, *, skip: Sequence[str], report: Report
) -> LawBisection:
    """Find the first version whose scheduler breaks the law when it plays the scenario.

    Raises NoVerdictError if an end cannot play the scenario or the good end breaks the law, and
    UsageError if there is nothing to search.
    """
    check(good, bad, skip)
    for end in (good, bad):
        check_known(end)
    judge = LawJudge(law, plays)
    judge.prefetch((good, bad))
    return LawBisection(good, bad, law, search(judge, good, bad, report, skip))


def history_by_law(
    plays: Plays, law: Law, paths: Sequence[Lifted], on_result: Callable[[JudgedCandidate], None]
) -> tuple[JudgedCandidate, ...]:
    """Judge every version in `paths`, in order. `on_result` is called with each result as it arrives."""
    for end in (paths[0], paths[-1]):
        check_known(end)
    judge, found = LawJudge(law, plays), []
    judge.prefetch(paths)
    for path in paths:
        found.append(judge_or_skip(judge, path))
        on_result(found[-1])
    return tuple(found)
