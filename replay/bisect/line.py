"""Given a line of judged candidates, find where they turn from good to bad and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .judge import Finding, JudgedCandidate


@dataclass(frozen=True, slots=True)
class Change:
    """One change in a line of candidates.

    `last` is the last candidate before the change. One of the `suspects` made the change; the last
    suspect shows it. There is one suspect unless candidates in between were skipped.
    """

    last: JudgedCandidate
    suspects: tuple[JudgedCandidate, ...]

    @property
    def shown(self) -> JudgedCandidate:
        return self.suspects[-1]


def changes(tested: Sequence[JudgedCandidate]) -> list[Change]:
    """Return every change from good to bad or back, in order. Skipped candidates are ignored."""
    found: list[Change] = []
    last: int | None = None
    for place, one in enumerate(tested):
        if one.finding is Finding.SKIPPED:
            continue
        if last is not None and tested[last].finding is not one.finding:
            found.append(Change(tested[last], tuple(tested[last + 1 : place + 1])))
        last = place
    return found
