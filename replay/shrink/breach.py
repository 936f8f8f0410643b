"""The other question that shrinking asks: is this law still broken, and in the same way?"""

from __future__ import annotations

from dataclasses import dataclass

from ...recorders.errors import NoVerdictError, UsageError
from ...recorders.recording import Recording
from ...recorders.schema import Kind
from ..columns.shared import Columns
from ..explain import Toggles
from ..laws.check import LAWS, outcome_of
from ..laws.law import Breach, Law, Outcome
from ..spec import Path
from ..verdict import ledger_of
from .symptom import Found


@dataclass(frozen=True, slots=True)
class Broken:
    """What two breaches of one sort have in common: no request, no step, no number."""

    kind: Kind
    too_many: bool  # or too few


class LawQuestion:
    """Where does a path break this law first? Known violations count, too, where there is no other."""

    def __init__(self, path: Path, law: str) -> None:
        self.path, self.law = path, law_of(law)

    def __call__(self, recording: Recording) -> Found | None:
        """None: it does not, or cannot run here."""
        try:
            breach = self.outcome(recording).first
        except NoVerdictError:
            return None
        return None if breach is None else self._found(breach)

    def outcome(self, recording: Recording) -> Outcome:
        columns = Columns(recording)
        return outcome_of(self.law, columns, ledger_of(columns, Toggles(columns), self.path))

    def _found(self, breach: Breach) -> Found:
        symptom = Broken(breach.kind, breach.found > breach.high)
        return Found(breach.event, breach.qid, symptom)


def law_of(name: str) -> Law:
    """Raises UsageError where there is no such law."""
    found = next((law for law in LAWS if law.name == name), None)
    if found is None:
        raise UsageError(f"no law {name!r}; there are: {', '.join(law.name for law in LAWS)}.")
    return found
