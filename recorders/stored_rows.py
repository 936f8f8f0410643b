"""The top-k rows that a recording holds for each finished request."""

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
    """For how many finishes the recording holds which rows."""

    finishes: int  # all finishes, if the server has a capturer
    collected: int  # the server collected rows
    returned: int  # ... and the recording holds all of these
    to_the_end: int  # rows are held up to the end of the sequence, including tokens after a stop
    whole: int  # ... and from position 0 on


class StoredRows:
    """The rows of `which` ("experts" or "indexer"), by row of `finishes`.

    A position is the index of a token in its request. The recording holds rows [start, end) of
    each finish. `start` and `end` are equal if it holds none, or if their positions are unknown.
    """

    def __init__(self, recording: Recording, which: str) -> None:
        finishes = self._finishes = recording.finishes
        self._which = which
        stored = getattr(finishes, f"{which}_stored")
        stored_from = getattr(finishes, f"{which}_stored_from")
        start = np.where(stored_from == NONE64, getattr(finishes, f"{which}_start"), stored_from)
        known = (start != NONE64) & (stored > 0)
        self.start: I64 = np.where(known, start, 0)
        self.end: I64 = np.where(known, start + stored, 0)
        self._rows: NDArray[Any] = getattr(recording, which)
        self._first = row_starts(stored)

    def holds(self, finish: int, start: int, end: int) -> bool:
        """Whether the recording holds every row of [start, end). True for an empty range."""
        return start >= end or bool(self.start[finish] <= start and end <= self.end[finish])

    def rows(self, finish: int, start: int, end: int) -> NDArray[Any]:
        """Return rows [start, end) of a finish, (rows, layers, topk). The recording must hold them."""
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
