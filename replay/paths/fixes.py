"""The five fixes by number, and the books for any set of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

from . import fix_22651, fix_23456, fix_24851, fix_25818, fix_26126
from .rules import Rules


@dataclass(frozen=True, slots=True)
class Fix:
    """One upstream pull request as a toggle."""

    number: int
    title: str
    since: str  # the first release that contains it
    apply: Callable[[Rules], Rules]


FIXES: tuple[Fix, ...] = (
    Fix(22651, "claim the bonus slot at prepare", "0.5.11", fix_22651.apply),
    Fix(23456, "skip stale results", "0.5.12", fix_23456.apply),
    Fix(24851, "routed experts on request, from start_len on", "0.5.12", fix_24851.apply),
    Fix(25818, "one place keeps seq_lens_sum", "none (#25879 in 0.5.13)", fix_25818.apply),
    Fix(26126, "rows end at the stop", "0.5.13", fix_26126.apply),
)

NUMBERS: tuple[int, ...] = tuple(fix.number for fix in FIXES)
ALL: frozenset[int] = frozenset(NUMBERS)


def rules_of(numbers: frozenset[int]) -> Rules:
    """Return the old books with these fixes applied.

    Each fix replaces its own slots, so the order does not matter.
    """
    rules = Rules()
    for fix in FIXES:
        if fix.number in numbers:
            rules = fix.apply(rules)
    return rules


def subsets(numbers: frozenset[int]) -> Iterator[frozenset[int]]:
    """Yield every subset, smaller ones first."""
    ordered = sorted(numbers)
    for size in range(len(ordered) + 1):
        yield from (frozenset(chosen) for chosen in combinations(ordered, size))
