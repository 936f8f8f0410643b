"""Collect what a regression test of a divergence states: the place, the wrong value, and every expected value."""

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

_MAX_VALUES = 200  # more would not be read in a test


@dataclass(frozen=True, slots=True)
class Regression:
    """The first divergence of `quantity`.

    `expected` has the values of the second path, and `key` is the divergence's place in it.
    """

    recording: Recording
    old: Path
    new: Path
    quantity: Quantity
    first: Divergence
    key: Key
    was: Plain
    expected: Values
    num_wrong: int  # values that the first path computes differently
    num_unexplained: int  # those of them that no set of fixes explains

    @property
    def fixes(self) -> frozenset[int]:
        """The smallest set of fixes that explains the divergence; empty if it does not explain the others too."""
        return (
            min(self.first.fixes, key=len)
            if self.first.fixes and not self.num_unexplained
            else frozenset()
        )


def regression(recording: Recording, old: Path, new: Path, quantity: Quantity | None) -> Regression:
    """Build the test's content. If `quantity` is None, the first quantity that differs is used.

    Raises NoVerdictError if the paths do not differ, and UsageError if there are too many values to
    write down.
    """
    wanted, columns = None if quantity is None else [quantity], Columns(recording)
    result = compare(columns, old, new, wanted)
    old, new = result.old, result.new
    chosen = target(result, "test")
    (compared,) = (found for found in result.quantities if found.quantity is chosen)
    difference = _difference(columns, old, new, chosen)
    # Excused cells may hold None or a number; a test must not require one of the two.
    right = difference.new.captured & ~difference.excused
    expected = values_in(recording, new, difference.new, right)
    if len(expected) > _MAX_VALUES:
        raise UsageError(
            f"{chosen.value} has {len(expected)} values: a test can hold at most {_MAX_VALUES}. "
            "Shrink the recording first with `specdiff shrink`."
        )
    wrong = values_in(recording, old, difference.old, difference.differs)
    assert compared.first is not None and wrong, "a quantity that differs has no differing cell"
    key, was = next(iter(wrong.items()))  # cells are in event order
    return Regression(
        recording,
        old,
        new,
        chosen,
        compared.first,
        key,
        was,
        expected,
        compared.num_differed,
        compared.num_unexplained or 0,
    )


def _difference(columns: Columns, old: Path, new: Path, quantity: Quantity) -> SeriesDiff:
    toggles = Toggles(columns, (quantity,))
    ledgers = (
        ledger_of(columns, toggles, path, (quantity,)).only((quantity,)) for path in (old, new)
    )
    (difference,) = diff(columns.recording, *ledgers)
    return difference
