"""Delta debugging: the result satisfies the predicate, and nothing one item smaller does."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from specdiff.replay.shrink.ddmin import ddmin


@given(st.integers(1, 40), st.data())
def test_a_monotone_predicate_leaves_exactly_what_is_needed(size: int, data: st.DataObject) -> None:
    needed = data.draw(st.sets(st.integers(0, size - 1), min_size=1))
    assert ddmin(range(size), lambda part: needed <= set(part)) == tuple(sorted(needed))


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(0, 2**32), st.integers(1, 9))
def test_the_result_is_1_minimal_for_any_predicate(size: int, seed: int, tenths: int) -> None:
    """A random predicate: a part of something that does not satisfy it may still do so."""
    asked: list[tuple[int, ...]] = []

    def thrown(part: tuple[int, ...]) -> bool:
        return random.Random(f"{seed} {part}").random() * 10 < tenths or len(part) == size

    def holds(part: tuple[int, ...]) -> bool:
        asked.append(part)
        return thrown(part)

    left = ddmin(range(size), holds)
    assert thrown(left) and list(left) == sorted(left)
    for item in left if len(left) > 1 else ():
        assert not thrown(tuple(other for other in left if other != item))
    assert len(asked) == len(set(asked)) and () not in asked


def test_one_needed_of_a_thousand_is_found_in_few_trials() -> None:
    asked: list[tuple[int, ...]] = []

    def holds(part: tuple[int, ...]) -> bool:
        asked.append(part)
        return 777 in part

    assert ddmin(range(1000), holds) == (777,)
    assert len(asked) < 60
