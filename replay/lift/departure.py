"""Stop a lifted replay at the first value that differs from another ledger.

Most departures show early.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...recorders.schema import NONE64
from ..quantity import Quantity
from .tracks import UNSET, TrackKey, Tracks

Expected = dict[TrackKey, NDArray[np.int64]]
"""A ledger's values laid out as a replay writes them: by track and row, parts side by side, UNSET for no value."""


class Departure:
    """A `Watch`. `found` is True once a value differed.

    Unless it is `exact`, it ignores what may not count in the end and leaves that to `diff`: None
    against a number, which may be excused, and sums, which may be given up later.
    """

    def __init__(self, expected: Expected, *, exact: bool = False) -> None:
        self._silent = (UNSET,) if exact else (UNSET, NONE64)
        self._expected = {
            key: values
            for key, values in expected.items()
            if exact or key.quantity is not Quantity.SEQ_LENS_SUM
        }
        self.found = False

    def __call__(self, tracks: Tracks) -> bool:
        self.found = self.found or any(
            self._differs(values, np.frombuffer(tracks.values[key], dtype=np.int64))
            for key, values in self._expected.items()
            if tracks.values.get(key)
        )
        return self.found

    def _differs(self, expected: NDArray[np.int64], now: NDArray[np.int64]) -> bool:
        """Whether two value arrays differ anywhere that both have a value that counts."""
        size = min(len(expected), len(now))
        one, other = expected[:size], now[:size]
        differs = one != other
        for silent in self._silent:
            differs &= (one != silent) & (other != silent)
        return bool(differs.any())
