"""The test for shrinking to a divergence: do these two paths still differ for the same reason?"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

import torch

from ...recorders.errors import NoVerdictError
from ...recorders.recording import Recording
from ..branch import branch
from ..columns.shared import Columns
from ..diff import SeriesDiff, diff
from ..explain import Toggles, explain
from ..ledger import Ledger
from ..lift.ledger import ledger_of
from ..lift.open import program_of
from ..observed import observed
from ..quantity import Quantity
from ..spec import FixSet, Lifted, Path

_Ledgers = Callable[[Columns, Toggles], Ledger]


@dataclass(frozen=True, slots=True)
class Symptom:
    """The kind of a divergence, without its request, step and numbers, so that two can be equal."""

    quantity: Quantity
    branch: tuple[str, ...]
    fixes: frozenset[frozenset[int]]  # the minimal sets that explain it; empty: unexplained


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Where the first divergence or breach is, and of which kind."""

    event: int
    qid: int | None  # None: the value is of a whole batch
    symptom: Hashable  # equal for two divergences or breaches of the same kind


class Question:
    """Finds where two paths first differ in one quantity. A lifted program is opened and compiled once."""

    def __init__(self, old: Path, new: Path, quantity: Quantity) -> None:
        self.old, self.new, self.quantity = old, new, quantity
        self._ledgers = _ledgers(old, quantity), _ledgers(new, quantity)

    def __call__(self, recording: Recording) -> Occurrence | None:
        """Return None if they do not differ, or a path cannot run this recording."""
        columns = Columns(recording)
        toggles = Toggles(columns, (self.quantity,))
        try:
            old, new = (made(columns, toggles) for made in self._ledgers)
        except NoVerdictError:
            return None
        old = replace(old, series=(old[self.quantity],))
        (difference,) = diff(recording, old, new)
        places = torch.nonzero(difference.differs).flatten()
        return (
            self._occurrence(columns, toggles, difference, int(places[0])) if len(places) else None
        )

    def _occurrence(
        self, columns: Columns, toggles: Toggles, difference: SeriesDiff, cell: int
    ) -> Occurrence:
        fixes = explain(toggles, difference, self.old, self.new).of_cell(cell)
        cells = difference.old.cells
        qid = int(cells.qid[cell])
        return Occurrence(
            event=int(cells.event[cell]),
            qid=None if qid < 0 else qid,
            symptom=Symptom(self.quantity, branch(columns, difference, cell), frozenset(fixes)),
        )


def _ledgers(path: Path, quantity: Quantity) -> _Ledgers:
    """Return a function that computes a path's ledger for this quantity and no other.

    The question is asked hundreds of times, so computing other quantities would waste time.
    """
    if isinstance(path, FixSet):
        return lambda _, toggles: toggles(path.fixes)
    if isinstance(path, Lifted):
        program = program_of(path)
        return lambda columns, _: ledger_of(columns, program, str(path), (quantity,))
    return lambda columns, _: observed(columns, (quantity,))
