"""What a path computes at an event besides committed lengths: rows, released lengths and session lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..recorders.schema import Kind
from .ledger import Ledger
from .quantity import Quantity
from .verdict import RowSpan, Value, value_of

AT: Mapping[Kind, tuple[Quantity, ...]] = {
    Kind.FINISH: (Quantity.ROUTED_EXPERTS, Quantity.INDEXER_TOPK),
    Kind.RELEASE: (Quantity.RELEASED_LEN,),
    Kind.SESSION_SAVE: (Quantity.SESSION_COMMITTED,),
    Kind.SESSION_RESTORE: (Quantity.SESSION_COMMITTED,),
}
"""The quantities that have a value at each kind of event: exactly one value per event."""

QUANTITIES = tuple(dict.fromkeys(quantity for each in AT.values() for quantity in each))

_TEXTS = {  # how to print a value, and how to print None
    Quantity.ROUTED_EXPERTS: ("rows {}", "no rows"),
    Quantity.INDEXER_TOPK: ("indexer rows {}", "no indexer rows"),
    Quantity.RELEASED_LEN: ("released {}", "released none"),
    Quantity.SESSION_COMMITTED: ("session {}", "session keeps nothing"),
}


@dataclass(frozen=True, slots=True)
class OtherValue:
    """The value of one quantity on one path; `value` is as returned by `value_of`."""

    quantity: Quantity
    value: Value

    def __str__(self) -> str:
        text, none = _TEXTS[self.quantity]
        if self.value is None:
            return none
        return text.format(self.value.span if isinstance(self.value, RowSpan) else self.value)


def other_values(
    ledgers: Sequence[Ledger], kind: Kind, event: int
) -> tuple[tuple[OtherValue | None, ...], ...]:
    """Return the values by quantity, then by path; None if the path has no value at this event."""
    return tuple(
        tuple(_at(ledger, quantity, event) for ledger in ledgers) for quantity in AT.get(kind, ())
    )


def _at(ledger: Ledger, quantity: Quantity, event: int) -> OtherValue | None:
    series = ledger[quantity]
    cell = int(torch.searchsorted(series.cells.event, event))  # cells are in event order
    assert series.cells.event[cell] == event, "an event has no cell of a quantity that it has"
    return OtherValue(quantity, value_of(series, cell)) if series.captured[cell] else None
