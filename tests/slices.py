"""The slice of `make fidelity` that every test run takes: two releases and five seeds, others each day."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timezone

import pytest

from specdiff.fixtures.rig.releases import RELEASES

VARIABLE = "SPECDIFF_SLICE"
RUNS = 5


@dataclass(frozen=True, slots=True)
class Slice:
    number: int  # of a day, as date.toordinal counts them

    @property
    def releases(self) -> tuple[str, str]:
        """An old one and a new one; all have been taken twice after as many days as there are."""
        count = len(RELEASES)
        return RELEASES[self.number % count], RELEASES[(self.number + count // 2) % count]

    @property
    def seed(self) -> int:
        """The first of five that no other day has."""
        return RUNS * self.number

    @property
    def again(self) -> str:
        return f'{VARIABLE}={self.number} make test ARGS="tests/test_fidelity_slice.py"'

    def __str__(self) -> str:
        seeds = f"seeds {self.seed} to {self.seed + RUNS - 1}"
        return f"{' and '.join(self.releases)}, {seeds}; again: {self.again}"


def todays() -> Slice:
    """As $SPECDIFF_SLICE says, else by the date (UTC)."""
    given = os.environ.get(VARIABLE, "")
    if not given:
        return Slice(datetime.now(timezone.utc).toordinal())
    if not given.isdecimal():
        raise pytest.UsageError(f"{VARIABLE}={given}: expected the number of a day, as 739941")
    return Slice(int(given))
