"""Which set of the five fixes keeps the same books as a lifted sglang: found by replaying both, never looked up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..columns.shared import Columns
from ..diff import diff
from ..explain import Toggles
from ..ledger import Ledger
from ..paths.fixes import ALL, subsets
from ..quantity import Quantity
from ..spec import FixSet
from .ledger import ledger_of
from .link import Books


@dataclass(frozen=True, slots=True)
class Match:
    """`sets`: the sets of fixes that equal these books on every value of every recording.

    Where there is none, `unmatched` says for which quantities no set does. `num_compared`: values, over all recordings.
    """

    sets: tuple[frozenset[int], ...]
    unmatched: tuple[Quantity, ...]
    num_compared: int

    def __str__(self) -> str:
        if not self.num_compared:
            return "nothing compared"
        if self.sets:
            return " = ".join(str(FixSet(fixes)) for fixes in self.sets)
        if self.unmatched:
            return f"no set of fixes, in {', '.join(q.value for q in self.unmatched)}"
        return "no one set of fixes"


def match(recordings: Sequence[Columns], books: Books) -> Match:
    """Raises CannotRunError where the books cannot run over one of the recordings."""
    fitting = {quantity: list(subsets(ALL)) for quantity in Quantity}
    num_compared = 0
    for columns in recordings:
        toggles, lifted = Toggles(columns), ledger_of(columns, books, books.name)
        num_compared += sum(int(series.captured.sum()) for series in lifted.series)
        for quantity, sets in fitting.items():
            fitting[quantity] = [f for f in sets if _equal(columns, toggles(f), lifted, quantity)]
    sets = [f for f in subsets(ALL) if all(f in found for found in fitting.values())]
    unmatched = tuple(quantity for quantity, found in fitting.items() if not found)
    return Match(tuple(sets), unmatched, num_compared)


def _equal(columns: Columns, one: Ledger, other: Ledger, quantity: Quantity) -> bool:
    pair = Ledger(one.path, (one[quantity],)), Ledger(other.path, (other[quantity],))
    return not any(d.differs.any() for d in diff(columns.recording, *pair))
