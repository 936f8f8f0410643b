"""Find the sets of the five fixes that keep the same books as a lifted sglang, by replaying both, never from a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..columns.shared import Columns
from ..diff import diff
from ..explain import Toggles
from ..ledger import Ledger
from ..paths.fixes import ALL, subsets
from ..quantity import Quantity
from .ledger import ledger_of
from .link import Program
from .matches import Match
from .missing import CannotRunError
from .replay_state import prepare_of


def match_apart(recordings: Sequence[Columns], program: Program) -> dict[str, Match]:
    """Return one match per algorithm, EAGLE's first, because a release may keep different books for each algorithm.

    Algorithms that this program has no prepare for are left out. Recordings that it cannot run are
    left out too, unless it can run none of them; then CannotRunError says why.
    """
    groups: dict[str, list[Columns]] = {}
    for columns in recordings:
        algorithm = columns.recording.run.spec_algorithm.upper()
        if prepare_of(program, algorithm):
            groups.setdefault(algorithm, []).append(columns)
    names = sorted(groups, key=lambda name: (name != "EAGLE", name))
    return {name: match(_runnable(groups[name], program), program) for name in names}


def _runnable(recordings: Sequence[Columns], program: Program) -> Sequence[Columns]:
    """Return the recordings that this program can run, or all of them if it can run none."""

    def runs(columns: Columns) -> bool:
        try:
            ledger_of(columns, program, program.name)
        except CannotRunError:
            return False
        return True

    return [columns for columns in recordings if runs(columns)] or recordings


def match(recordings: Sequence[Columns], program: Program) -> Match:
    """Match a program. Raises CannotRunError if it cannot run over one of the recordings."""
    return match_ledgers(
        (columns, ledger_of(columns, program, program.name)) for columns in recordings
    )


def match_ledgers(ledgers: Iterable[tuple[Columns, Ledger]]) -> Match:
    """Like `match`, for ledgers that are already computed: pairs of (recording, ledger of the program)."""
    fitting = {quantity: list(subsets(ALL)) for quantity in Quantity}
    num_compared = 0
    for columns, lifted in ledgers:
        toggles = Toggles(columns)
        num_compared += sum(int(series.captured.sum()) for series in lifted.series)
        for quantity, sets in fitting.items():
            fitting[quantity] = [f for f in sets if _equal(columns, toggles(f), lifted, quantity)]
    sets = [f for f in subsets(ALL) if all(f in found for found in fitting.values())]
    unmatched = tuple(quantity for quantity, found in fitting.items() if not found)
    return Match(tuple(sets), unmatched, num_compared)


def _equal(columns: Columns, one: Ledger, other: Ledger, quantity: Quantity) -> bool:
    pair = Ledger(one.path, (one[quantity],)), Ledger(other.path, (other[quantity],))
    return not any(d.differs.any() for d in diff(columns.recording, *pair))
