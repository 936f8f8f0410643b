"""Holds one candidate after the other against a reference, over one recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from ...recorders.errors import NoVerdictError
from ..columns.shared import Columns
from ..diff import SeriesDiff, diff
from ..explain import Toggles
from ..laws.law import Outcome
from ..lift.ledger import departs, expected
from ..lift.ledger import ledger_of as ledger_of_books
from ..lift.link import Books
from ..lift.open import books_of, surface_of
from ..quantity import Quantity
from ..spec import Lifted, Path
from ..verdict import ledger_of


class Finding(str, Enum):
    GOOD = "good"  # what the reference says, wherever both say anything
    BAD = "bad"  # something else
    SKIPPED = "skipped"  # it cannot run this recording, or what was asked for could not be compared


@dataclass(frozen=True, slots=True)
class Judged:
    """One candidate and what was found. `why`: of one that was skipped, else what is to be known of how it was
    judged; `outcome`: of the law, where one judged."""

    path: Lifted
    finding: Finding
    digest: str | None  # of its books: candidates with the same are the same code
    why: str | None = None
    outcome: Outcome | None = None


class Judge:
    """Books that are the same code are judged once."""

    def __init__(
        self, columns: Columns, reference: Path, quantities: Sequence[Quantity] | None
    ) -> None:
        """`quantities`: only these; each of them must then have been compared.

        Raises UsageError or NoVerdictError where the reference itself cannot be had or run.
        """
        self.columns, self.quantities = columns, tuple(quantities or Quantity)
        self._named = quantities is not None
        self.reference: Path = reference
        toggles = Toggles(columns, self.quantities)
        self._ledger = ledger_of(columns, toggles, reference, self.quantities).only(self.quantities)
        self._expected = expected(self._ledger, self.quantities)
        self._found: dict[str, tuple[Finding, str | None]] = {}

    def __call__(self, path: Lifted) -> Judged:
        """Raises UsageError where there is no such release or commit."""
        try:
            surface = surface_of(path)
        except NoVerdictError as error:
            return Judged(path, Finding.SKIPPED, None, str(error))
        digest = surface.digest
        if digest not in self._found:
            self._found[digest] = self._judge(Books(surface))
        finding, why = self._found[digest]
        return Judged(path, finding, digest, why)

    def ahead(self, paths: Sequence[Lifted]) -> None:
        """These will be asked for, soon: a crew may begin."""
        if self.columns.crew is not None:
            self.columns.crew.begin_watched(paths, self._expected, self._found)

    def why_not_good(self, end: Lifted) -> str:
        return (
            f"it differs from {self.reference}. Where, `specdiff replay RECORDING --old {self.reference} --fixed {end}` "
            "says; a good end is one that does not."
        )

    def num_compared(self, path: Lifted) -> int:
        """Values of the wanted quantities that both the reference and this path have: the whole path is replayed."""
        return sum(one.num_compared for one in self._against(books_of(path)))

    def _judge(self, books: Books) -> tuple[Finding, str | None]:
        try:
            if departs(self.columns, books, self._expected, self.quantities):
                return Finding.BAD, None
            found = self._against(books)
        except NoVerdictError as error:
            return Finding.SKIPPED, str(error)
        if any(one.differs.any() for one in found):
            return Finding.BAD, None
        silent = [one.quantity.value for one in found if not one.num_compared]
        if len(silent) == len(found) or (self._named and silent):
            return Finding.SKIPPED, f"nothing could be compared of {', '.join(silent)}"
        return Finding.GOOD, None

    def _against(self, books: Books) -> tuple[SeriesDiff, ...]:
        ledger = ledger_of_books(self.columns, books, books.name, self.quantities)
        return diff(self.columns.recording, self._ledger, ledger)
