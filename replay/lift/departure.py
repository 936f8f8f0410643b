"""Watches a lifted replay for the first value that another ledger has otherwise: most departures show early."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ...recorders.schema import NONE64, Kind
from ..cells import Moment
from ..ledger import Ledger, Series
from ..quantity import Quantity
from .tracks import UNSET, Place, Tracks

Expected = dict[Place, NDArray[np.int64]]


def expected(ledger: Ledger, quantities: Sequence[Quantity]) -> Expected:
    """A ledger's values where a replay writes its own: by place and row, parts side by side, UNSET where it has none."""
    return {place: values for quantity in quantities for place, values in _by_row(ledger[quantity])}


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


def _by_row(series: Series) -> Iterator[tuple[Place, NDArray[np.int64]]]:
    cells, parts = series.cells, series.values.shape[1]
    for kind in Kind:
        for moment in Moment:
            mine = (cells.kind == kind) & (cells.moment == moment) & series.captured
            rows = cells.row[mine].numpy()
            if len(rows):
                by_row = np.full((int(rows.max()) + 1, parts), UNSET, dtype=np.int64)
                by_row[rows] = series.values[mine].numpy()
                yield Place(series.quantity, kind, moment is Moment.AFTER), by_row.reshape(-1)
