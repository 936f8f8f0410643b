"""The slice of `make fidelity` in every test run: two releases and five seeds each day."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timezone

import pytest

from specdiff.fixtures.rig.release import RELEASES

VARIABLE = "SPECDIFF_SLICE"
RUNS = 5


@dataclass(frozen=True, slots=True)
class Slice:
    number: int  # of the day, as date.toordinal counts

    @property
    def releases(self) -> tuple[str, str]:
        """An old and a new release.

        After as many days as there are releases, each has been taken twice.
        """
        count = len(RELEASES)
        return RELEASES[self.number % count], RELEASES[(self.number + count // 2) % count]

    @property
    def seed(self) -> int:
        """The first of five seeds that no other day has."""
        return RUNS * self.number

    @property
    def again(self) -> str:
        return f'{VARIABLE}={self.number} make test ARGS="tests/test_fidelity_slice.py"'

    def __str__(self) -> str:
        seeds = f"seeds {self.seed} to {self.seed + RUNS - 1}"
        return f"{' and '.join(self.releases)}, {seeds}; again: {self.again}"


def todays() -> Slice:
    """Return the slice that $SPECDIFF_SLICE selects, or else the one of today's date (UTC)."""
    given = os.environ.get(VARIABLE, "")
    if not given:
        return Slice(datetime.now(timezone.utc).toordinal())
    if not given.isdecimal():
        raise pytest.UsageError(
            f"{VARIABLE}={given}: expected the number of a day, for example 739941"
        )
    return Slice(int(given))
