"""Candidates in a line, all of them judged: where they change, and where they change back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .judge import Finding, Judged


@dataclass(frozen=True, slots=True)
class Change:
    """`last`: the last before the change; `suspects`: those of which the first made it, the last of them shows it.

    One suspect unless some between `last` and it were skipped.
    """

    last: Judged
    suspects: tuple[Judged, ...]

    @property
    def shown(self) -> Judged:
        return self.suspects[-1]


def changes(tested: Sequence[Judged]) -> list[Change]:
    """Every change from good to bad and back, in order. The skipped are neither."""
    found: list[Change] = []
    last: int | None = None
    for place, one in enumerate(tested):
        if one.finding is Finding.SKIPPED:
            continue
        if last is not None and tested[last].finding is not one.finding:
            found.append(Change(tested[last], tuple(tested[last + 1 : place + 1])))
        last = place
    return found
