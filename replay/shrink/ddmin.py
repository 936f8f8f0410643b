"""Delta debugging: from a list of which something holds to a part of it of which it holds too, and of no part one smaller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise, zip_longest
from typing import TypeVar

T = TypeVar("T")


def ddmin(
    items: Sequence[T],
    holds: Callable[[tuple[T, ...]], bool],
    soon: Callable[[tuple[T, ...]], object] = lambda part: None,
) -> tuple[T, ...]:
    """A 1-minimal part of `items`, in their order: `holds` of it, and not once any one item of it is left out.

    `holds` must be true of all `items`; it is never asked twice about the same part, and never about none. (Zeller and
    Hildebrandt, "Simplifying and isolating failure-inducing input", 2002.) Later items are left out first.

    `soon` hears of the part that is asked about next, unless this one holds.
    """
    asked: dict[tuple[T, ...], bool] = {}

    def ask(part: tuple[T, ...]) -> bool:
        if part not in asked:
            asked[part] = bool(part) and holds(part)
        return asked[part]

    left, pieces = tuple(items), 2
    while len(left) > 1:
        parts = _split(left, pieces)
        rest = [
            tuple(item for other in parts if other is not part for item in other) for part in parts
        ]
        if pieces > 2:
            parts = []  # a part smaller than half rarely holds alone: what is left without one, more often
        candidates = (*reversed(rest), *parts)
        found = None
        for part, following in zip_longest(candidates, candidates[1:]):
            if part not in asked and following and following not in asked:
                soon(following)
            if ask(part):
                found = part
                break
        if found is not None:
            left, pieces = found, max(2, min(len(found), pieces - 1))
        elif pieces < len(left):
            pieces = min(len(left), 2 * pieces)
        else:
            break
    return left


def _split(items: tuple[T, ...], pieces: int) -> list[tuple[T, ...]]:
    """As many parts, as even as can be, in order."""
    edges = [len(items) * i // pieces for i in range(pieces + 1)]
    return [items[a:b] for a, b in pairwise(edges)]
