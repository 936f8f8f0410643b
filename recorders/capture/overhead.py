"""What recording costs: histograms of nanoseconds, in bounded memory."""

from __future__ import annotations

from collections import deque
from threading import Lock

_TURNS = 1 << 16  # that wait to be counted; the writer asks every second
_BITS = 5  # 32 buckets an octave: quantiles within 3%


class Histogram:
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
        """The upper edge of the bucket that holds the `q` quantile; None where there is nothing in it."""
        if not self.count:
            return None
        left = q * self.count
        for bucket, count in enumerate(self._buckets):
            left -= count
            if count and left <= 0:
                return min(_upper_edge(bucket), self.max_ns or 0)
        return self.max_ns


class Overhead:
    """Time spent in recorder code, by turns of the scheduler's loop: each ends with the result that is processed in it."""

    def __init__(self) -> None:
        self.spent = 0  # ns since the last turn; the probes add to it
        self.steps = 0  # turns in which a decode result was processed
        self._decode, self._prefill = Histogram(), Histogram()
        self._turns: deque[int] = deque(
            maxlen=_TURNS
        )  # not counted yet; inverted where it is no decode step
        self._counting = Lock()

    def turn(self, decoded: bool) -> None:
        """One is over: what was spent since the last one is its cost. It is counted when somebody asks: on another thread."""
        spent, self.spent = self.spent, 0
        self.steps += decoded
        self._turns.append(spent if decoded else ~spent)

    @property
    def decode(self) -> Histogram:
        self._count()
        return self._decode

    @property
    def prefill(self) -> Histogram:
        """Of all turns that are no decode step."""
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
