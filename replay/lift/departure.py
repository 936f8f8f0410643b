"""Watches a lifted replay for the first value that another ledger has otherwise: most departures show early."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...recorders.schema import NONE64
from ..quantity import Quantity
from .tracks import UNSET, Place, Tracks

Expected = dict[Place, NDArray[np.int64]]
"""A ledger's values where a replay writes its own: by place and row, parts side by side, UNSET where it has none."""


class Departure:
    """A `Watch`. `found`: a value differed.

    Unless it is `exact`, it leaves to `diff` what may not count in the end: None against a number, which may be
    excused, and sums, which may be given up later.
    """

    def __init__(self, expected: Expected, *, exact: bool = False) -> None:
        self._silent = (UNSET,) if exact else (UNSET, NONE64)
        self._expected = {
            place: values
            for place, values in expected.items()
            if exact or place.quantity is not Quantity.SEQ_LENS_SUM
        }
        self.found = False

    def __call__(self, tracks: Tracks) -> bool:
        self.found = self.found or any(
            self._differs(values, np.frombuffer(tracks.values[place], dtype=np.int64))
            for place, values in self._expected.items()
            if tracks.values.get(place)
        )
        return self.found

    def _differs(self, expected: NDArray[np.int64], now: NDArray[np.int64]) -> bool:
        size = min(len(expected), len(now))
        one, other = expected[:size], now[:size]
        said = one != other
        for silent in self._silent:
            said &= (one != silent) & (other != silent)
        return bool(said.any())
