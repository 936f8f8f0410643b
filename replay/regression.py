"""What a regression test of a divergence says: where, what went wrong, and every value as it ought to be."""

from __future__ import annotations

from dataclasses import dataclass

from ..recorders.errors import UsageError
from ..recorders.recording import Recording
from .columns.shared import Columns
from .diff import SeriesDiff, diff
from .explain import Toggles
from .quantity import Quantity
from .shrink.shrink import target
from .spec import Path
from .values import Key, Plain, Values, values_in
from .verdict import Divergence, compare, ledger_of

_MAX_VALUES = 200  # more than anybody reads in a test


@dataclass(frozen=True, slots=True)
class Regression:
    """The first divergence of `quantity`; `key` is its place in `expected`, what the second path computes."""

    recording: Recording
    old: Path
    new: Path
    quantity: Quantity
    first: Divergence
    key: Key
    was: Plain
    expected: Values
    num_wrong: int  # values that the first path computes otherwise


def regression(recording: Recording, old: Path, new: Path, quantity: Quantity | None) -> Regression:
    """`quantity`: None for the first that differs. Raises NoVerdictError where the paths do not part, UsageError where
    there are too many values to write down."""
    wanted, columns = None if quantity is None else [quantity], Columns(recording)
    result = compare(columns, old, new, wanted)
    chosen = target(result, "test")
    (made,) = (found for found in result.quantities if found.quantity is chosen)
    difference = _difference(columns, old, new, chosen)
    # Where either of None and a number is right, a test would hold one of them against the other.
    right = difference.new.captured & ~difference.excused
    expected = values_in(recording, new, difference.new, right)
    if len(expected) > _MAX_VALUES:
        raise UsageError(
            f"{len(expected)} values of {chosen.value}: too many for a test (at most {_MAX_VALUES}). "
            "First `specdiff shrink` the recording."
        )
    wrong = values_in(recording, old, difference.old, difference.differs)
    assert made.first is not None and wrong, "a quantity that differs has no place where it does"
    key, was = next(iter(wrong.items()))  # cells are in event order
    return Regression(
        recording, old, new, chosen, made.first, key, was, expected, made.num_differed
    )


def _difference(columns: Columns, old: Path, new: Path, quantity: Quantity) -> SeriesDiff:
    toggles = Toggles(columns, (quantity,))
    ledgers = (
        ledger_of(columns, toggles, path, (quantity,)).only((quantity,)) for path in (old, new)
    )
    (difference,) = diff(columns.recording, *ledgers)
    return difference
