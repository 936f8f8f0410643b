"""What recording costs: a histogram of nanoseconds per step, in bounded memory."""

from __future__ import annotations

_BITS = 5  # 32 buckets an octave: quantiles within 3%


class Overhead:
    """Time spent in recorder code, closed once per decode step."""

    def __init__(self) -> None:
        self._buckets = [0] * (64 << _BITS)
        self.spent = 0  # ns since the last step; the probes add to it
        self.steps = 0
        self.max_ns: int | None = None

    def step(self) -> None:
        """A decode step is over: what was spent since the last one is its cost."""
        spent, self.spent = self.spent, 0
        self._buckets[_bucket(spent)] += 1
        self.steps += 1
        self.max_ns = spent if self.max_ns is None else max(self.max_ns, spent)

    def quantile(self, q: float) -> int | None:
        """The upper edge of the bucket that holds the `q` quantile; None before the first step."""
        if not self.steps:
            return None
        left = q * self.steps
        for bucket, count in enumerate(self._buckets):
            left -= count
            if count and left <= 0:
                return min(_upper_edge(bucket), self.max_ns or 0)
        return self.max_ns


def _bucket(ns: int) -> int:
    octave = max(ns.bit_length() - 1 - _BITS, 0)
    return min((octave << _BITS) + (ns >> octave), (64 << _BITS) - 1)


def _upper_edge(bucket: int) -> int:
    octave = max((bucket >> _BITS) - 1, 0)
    return ((bucket - (octave << _BITS) + 1) << octave) - 1
