"""What a lifted replay writes: per quantity, kind of event and moment, one value per row of the kind's table."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import NamedTuple

from ...recorders.schema import NONE64, Kind
from ..quantity import PARTS, Quantity
from .roles import Role
from .standins.base import known
from .tape import Tape

UNSET = NONE64 + 1  # marks a row without a value


class TrackKey(NamedTuple):
    """Which track a value belongs to.

    `after` is True for a value taken after the event, False for one taken before it.
    """

    quantity: Quantity
    kind: Kind
    after: bool

    @property
    def parts(self) -> int:
        return len(PARTS.get(self.quantity, ("",)))


TrackValues = dict[TrackKey, "array[int]"]


@dataclass(slots=True)
class Tracks:
    """The values of one replay. Rows without a value were not captured.

    `reasons` says in a sentence why a quantity was never captured. `wanted` lists the quantities
    that will be read; other quantities may be incomplete. `values` is int64, with the parts of a
    row (as in `PARTS`) next to each other; None is NONE64. `called` has the roles that the replay
    called; it is empty if a worker process replayed.
    """

    tape: Tape
    wanted: frozenset[Quantity] = frozenset(Quantity)
    values: TrackValues = field(default_factory=dict)
    reasons: dict[Quantity, str] = field(default_factory=dict)
    called: set[Role] = field(default_factory=set)

    def track(self, key: TrackKey) -> array[int]:
        """Return one track, to be written by row."""
        values = self.values.get(key)
        if values is None:
            rows = self.tape.size(key.kind, per_batch=key.quantity is Quantity.SEQ_LENS_SUM)
            values = self.values[key] = array("q", [UNSET]) * (rows * key.parts)
        return values

    def wanted_track(self, key: TrackKey) -> array[int] | None:
        """Like `track`, but None if the quantity is not wanted."""
        return self.track(key) if key.quantity in self.wanted else None

    def put(self, key: TrackKey, row: int, value: int | None) -> None:
        """Write a value. A length that depends on something unknown is left out."""
        if known(value):
            self.track(key)[row] = NONE64 if value is None else int(value)

    def put_parts(self, key: TrackKey, row: int, *parts: int) -> None:
        self.track(key)[row * len(parts) : (row + 1) * len(parts)] = array("q", parts)
