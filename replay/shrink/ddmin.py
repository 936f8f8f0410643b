"""Delta debugging: reduce a list to a part that still has a property, so that no single item can go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise, zip_longest
from typing import TypeVar

T = TypeVar("T")


def ddmin(
    items: Sequence[T],
    holds: Callable[[tuple[T, ...]], bool],
    prefetch: Callable[[tuple[T, ...]], object] = lambda part: None,
) -> tuple[T, ...]:
    """Return a 1-minimal part of `items`, in their order.

    `holds` is true for the result, but false if any one item of it is left out. (Zeller and
    Hildebrandt, "Simplifying and isolating failure-inducing input", 2002.) Later items are left out
    first.

    `holds` must be true for all of `items`. It is never called twice for the same part, and never
    for the empty part. `prefetch` is called with the part that will be tried next if `holds` is false
    for the current one.
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
            parts = []  # a part smaller than half rarely holds alone; its complement holds more often
        candidates = (*reversed(rest), *parts)
        found = None
        for part, following in zip_longest(candidates, candidates[1:]):
            if part not in asked and following and following not in asked:
                prefetch(following)
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
    """Split into `pieces` consecutive parts of nearly equal size."""
    edges = [len(items) * i // pieces for i in range(pieces + 1)]
    return [items[a:b] for a, b in pairwise(edges)]
