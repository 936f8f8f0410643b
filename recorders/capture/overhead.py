"""Measure what recording costs, as histograms of nanoseconds in bounded memory."""

from __future__ import annotations

from collections import deque
from threading import Lock

_TURNS = 1 << 16
_BITS = 5  # 32 buckets per octave: quantiles are exact to 3%


class LatencyHistogram:
    def __init__(self) -> None:
        self._buckets = [0] * (64 << _BITS)
        self.count = 0
        self.max_ns: int | None = None

    def add(self, ns: int) -> None:
        self._buckets[_bucket(ns)] += 1
        self.count += 1
        if self.max_ns is None or ns > self.max_ns:
            self.max_ns = ns

    def quantile(self, q: float) -> int | None:
        """Return the upper edge of the bucket with the `q` quantile, or None if nothing was added."""
        if not self.count:
            return None
        left = q * self.count
        for bucket, count in enumerate(self._buckets):
            left -= count
            if count and left <= 0:
                return min(_upper_edge(bucket), self.max_ns or 0)
        return self.max_ns


class Overhead:
    """Time spent in recorder code, per turn (iteration) of the scheduler loop.

    A turn ends when a result has been processed. Time spent in idle turns is not counted.
    """

    def __init__(self) -> None:
        self.spent = 0  # ns in the current turn; the probes add to it
        self.steps = 0  # number of turns that processed a decode result
        self._decode, self._prefill = LatencyHistogram(), LatencyHistogram()
        # Turns not yet added to a histogram, which another thread does; inverted if the turn
        # processed a prefill result. If that thread hangs on the disk, only the last ones remain.
        self._turns: deque[int] = deque(maxlen=_TURNS)
        self._counting = Lock()

    def decoded(self) -> None:
        spent, self.spent = self.spent, 0
        self.steps += 1
        self._turns.append(spent)

    def prefilled(self) -> None:
        spent, self.spent = self.spent, 0
        self._turns.append(~spent)

    def idled(self) -> None:
        self.spent = 0

    @property
    def decode(self) -> LatencyHistogram:
        self._count()
        return self._decode

    @property
    def prefill(self) -> LatencyHistogram:
        self._count()
        return self._prefill

    def _count(self) -> None:
        with self._counting:
            while self._turns:
                spent = self._turns.popleft()
                if spent < 0:
                    self._prefill.add(~spent)
                else:
                    self._decode.add(spent)


def _bucket(ns: int) -> int:
    octave = max(ns.bit_length() - 1 - _BITS, 0)
    return min((octave << _BITS) + (ns >> octave), (64 << _BITS) - 1)


def _upper_edge(bucket: int) -> int:
    octave = max((bucket >> _BITS) - 1, 0)
    return ((bucket - (octave << _BITS) + 1) << octave) - 1
