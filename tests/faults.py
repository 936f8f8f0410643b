"""How many trials a fault test makes: a few in every test run, all of them under `make faults`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

FULL = os.environ.get("SPECDIFF_FAULTS") == "full"
PROPERTY = "faults"  # `conftest` prints properties of this name at the end

Tell = Callable[[str, Counter[str]], None]


def trials(here: int, full: int) -> int:
    return full if FULL else here


def some_of(cases: Sequence[str], here: int) -> Sequence[str]:
    """Return the cases to parametrize with: the first `here` of them, or all."""
    return cases if FULL else cases[:here]


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """A function that reports counts. They are printed at the end of the test run."""

    def told(what: str, counts: Counter[str]) -> None:
        said = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        record_property(PROPERTY, f"{what}: {sum(counts.values())} trials: {said}")

    return told
