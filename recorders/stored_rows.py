"""Which top-k rows a recording holds of each finished request, and the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .recording import Recording, row_starts
from .schema import NONE64

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .schema import I64


@dataclass(frozen=True, slots=True)
class Coverage:
    """Numbers of finishes. `collected`: the server collected rows; `returned`: those are all held. Of all `finishes` where
    the server has a capturer: those whose rows are held up to the end of the sequence, behind a stop too, and `whole`."""

    finishes: int
    collected: int
    returned: int
    to_the_end: int
    whole: int


class StoredRows:
    """Rows of `which` ("experts" or "indexer"), by row of `finishes`. Positions are tokens of the request from 0 on.

    `start`, `end`: rows [start, end) are held; equal where none are, or it is not known of which positions they are.
    """

    def __init__(self, recording: Recording, which: str) -> None:
        finishes = self._finishes = recording.finishes
        self._which = which
        stored = getattr(finishes, f"{which}_stored")
        told = getattr(finishes, f"{which}_stored_from")
        start = np.where(told == NONE64, getattr(finishes, f"{which}_start"), told)
        known = (start != NONE64) & (stored > 0)
        self.start: I64 = np.where(known, start, 0)
        self.end: I64 = np.where(known, start + stored, 0)
        self._rows: NDArray[Any] = getattr(recording, which)
        self._first = row_starts(stored)

    def holds(self, finish: int, start: int, end: int) -> bool:
        """Whether every row of [start, end) is here. None is needed for an empty range."""
        return start >= end or bool(self.start[finish] <= start and end <= self.end[finish])

    def rows(self, finish: int, start: int, end: int) -> NDArray[Any]:
        """Rows [start, end) of a finish, (rows, layers, topk); they must be held."""
        assert self.holds(finish, start, end), (
            f"rows [{start}, {end}) of finish {finish} are not held"
        )
        if start >= end:
            return self._rows[:0]
        first = int(self._first[finish] - self.start[finish])
        return self._rows[first + start : first + end]

    def coverage(self) -> Coverage:
        state, start, rows = (
            getattr(self._finishes, f"{self._which}_{name}") for name in ("state", "start", "rows")
        )
        end = (self._finishes.origin_len + self._finishes.output_len - 1).clip(min=0)
        some, ends = state != NONE64, (self.start < self.end) & (self.end >= end)
        collected = state == 1
        returned = collected & (self.start <= start) & (start + rows <= self.end)
        return Coverage(
            *(int(mask.sum()) for mask in (some, collected, returned | (collected & (rows == 0)))),
            *(int(mask.sum()) for mask in (ends, ends & (self.start == 0))),
        )
