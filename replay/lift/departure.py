"""Watches a lifted replay for the first value that another ledger has otherwise: most departures show early."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ...recorders.schema import NONE64, Kind
from ..cells import Moment
from ..ledger import Series
from ..quantity import Quantity
from .tracks import UNSET, Place, Tracks


class Departure:
    """A `Watch`. `found`: a value differed.

    Unless it is `exact`, it leaves to `diff` what may not count in the end: None against a number, which may be
    excused, and sums, which may be given up later.
    """

    def __init__(self, series: Sequence[Series], *, exact: bool = False) -> None:
        self._silent = (UNSET,) if exact else (UNSET, NONE64)
        watched = [one for one in series if exact or one.quantity is not Quantity.SEQ_LENS_SUM]
        self._expected = {place: values for one in watched for place, values in _by_row(one)}
        self.found = False

    def __call__(self, tracks: Tracks) -> bool:
        self.found = self.found or any(
            self._differs(expected, np.frombuffer(tracks.values[place], dtype=np.int64))
            for place, expected in self._expected.items()
            if tracks.values.get(place)
        )
        return self.found

    def _differs(self, expected: NDArray[np.int64], now: NDArray[np.int64]) -> bool:
        size = min(len(expected), len(now))
        one, other = expected[:size], now[:size]
        said = ~np.isin(one, self._silent) & ~np.isin(other, self._silent)
        return bool(((one != other) & said).any())


def _by_row(series: Series) -> Iterator[tuple[Place, NDArray[np.int64]]]:
    """The values of each kind and moment, by row of the kind's table, parts side by side."""
    cells, parts = series.cells, series.values.shape[1]
    for kind in Kind:
        for moment in Moment:
            mine = (cells.kind == kind) & (cells.moment == moment) & series.captured
            rows = cells.row[mine].numpy()
            if len(rows):
                by_row = np.full((int(rows.max()) + 1, parts), UNSET, dtype=np.int64)
                by_row[rows] = series.values[mine].numpy()
                yield Place(series.quantity, kind, moment is Moment.AFTER), by_row.reshape(-1)
