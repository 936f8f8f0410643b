"""Compare candidates, one after the other, with a reference over one recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from ...recorders.errors import NoVerdictError
from ..columns.shared import Columns
from ..diff import SeriesDiff, diff
from ..explain import Toggles
from ..laws.law import LawOutcome
from ..lift.ledger import departs, expected
from ..lift.ledger import ledger_of as ledger_of_program
from ..lift.link import Program
from ..lift.open import program_of, surface_of
from ..quantity import Quantity
from ..spec import Lifted, Path
from ..verdict import ledger_of


class Finding(str, Enum):
    """What a judge says about a candidate."""

    GOOD = "good"  # equals the reference wherever both have a value
    BAD = "bad"  # differs from the reference
    SKIPPED = "skipped"  # cannot run this recording, or a wanted quantity could not be compared


@dataclass(frozen=True, slots=True)
class JudgedCandidate:
    """One candidate and its finding.

    `why` is the reason if the candidate was skipped, otherwise a remark on how it was judged.
    `outcome` is the outcome of the law, if a law judged it.
    """

    path: Lifted
    finding: Finding
    digest: str | None  # digest of its books: equal for equal code
    why: str | None = None
    outcome: LawOutcome | None = None


class Judge:
    """Judges candidates by their books. Candidates with the same code are judged once."""

    def __init__(
        self, columns: Columns, reference: Path, quantities: Sequence[Quantity] | None
    ) -> None:
        """`quantities` limits the comparison to these; each of them must then be compared.

        Raises UsageError if the reference cannot be found, NoVerdictError if it cannot run.
        """
        self.columns, self.quantities = columns, tuple(quantities or Quantity)
        self._named = quantities is not None
        self.reference: Path = reference
        toggles = Toggles(columns, self.quantities)
        self._ledger = ledger_of(columns, toggles, reference, self.quantities).only(self.quantities)
        self._expected = expected(self._ledger, self.quantities)
        self._found: dict[str, tuple[Finding, str | None]] = {}

    def __call__(self, path: Lifted) -> JudgedCandidate:
        """Judge one candidate. Raises UsageError if there is no such release or commit."""
        try:
            surface = surface_of(path)
        except NoVerdictError as error:
            return JudgedCandidate(path, Finding.SKIPPED, None, str(error))
        digest = surface.digest
        if digest not in self._found:
            self._found[digest] = self._judge(Program(surface))
        finding, why = self._found[digest]
        return JudgedCandidate(path, finding, digest, why)

    def prefetch(self, paths: Sequence[Lifted]) -> None:
        """Announce candidates that will be judged soon, so that worker processes can start on them."""
        if self.columns.workers is not None:
            self.columns.workers.begin_watched(paths, self._expected, self._found)

    def why_not_good(self, end: Lifted) -> str:
        return (
            f"it differs from {self.reference}. `specdiff replay RECORDING --old {self.reference} --fixed {end}` "
            "shows where. Choose a good end that does not differ."
        )

    def num_compared(self, path: Lifted) -> int:
        """Return how many values of the wanted quantities both the reference and this path have.

        This replays the whole path.
        """
        return sum(one.num_compared for one in self._against(program_of(path)))

    def _judge(self, program: Program) -> tuple[Finding, str | None]:
        try:
            if departs(self.columns, program, self._expected, self.quantities):
                return Finding.BAD, None
            found = self._against(program)
        except NoVerdictError as error:
            return Finding.SKIPPED, str(error)
        if any(one.differs.any() for one in found):
            return Finding.BAD, None
        silent = [one.quantity.value for one in found if not one.num_compared]
        if len(silent) == len(found) or (self._named and silent):
            return Finding.SKIPPED, f"no values of {', '.join(silent)} could be compared"
        return Finding.GOOD, None

    def _against(self, program: Program) -> tuple[SeriesDiff, ...]:
        ledger = ledger_of_program(self.columns, program, program.name, self.quantities)
        return diff(self.columns.recording, self._ledger, ledger)
