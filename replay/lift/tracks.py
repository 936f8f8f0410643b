"""What a lifted replay writes down: per quantity, kind of event and moment, one value per row of the kind's table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from ...recorders.schema import NONE64, Kind
from ..quantity import Quantity
from .standin import known

Value = int | tuple[int, ...]  # one part, or the parts as in `ledger.PARTS`; None is NONE64


class Place(NamedTuple):
    """`after`: taken when the event was over, else when it began."""

    quantity: Quantity
    kind: Kind
    after: bool


@dataclass(slots=True)
class Tracks:
    """Rows that are not there were not captured. `reasons`: why a quantity never was, in a sentence."""

    values: dict[Place, dict[int, Value]] = field(default_factory=dict)
    reasons: dict[Quantity, str] = field(default_factory=dict)

    def track(self, place: Place) -> dict[int, Value]:
        """The values of one place, to be written by row."""
        return self.values.setdefault(place, {})

    def put(self, place: Place, row: int, value: int | None) -> None:
        """A length that depends on something unknown is left out."""
        if known(value):
            self.track(place)[row] = NONE64 if value is None else int(value)

    def put_rows(self, place: Place, row: int, value: Value) -> None:
        self.track(place)[row] = value
