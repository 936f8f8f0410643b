"""The other question that shrinking asks: is this law still broken, and in the same way?"""

from __future__ import annotations

from dataclasses import dataclass

from ...recorders.errors import NoVerdictError
from ...recorders.recording import Recording
from ...recorders.schema import Kind
from ..laws.ask import ask, law_of
from ..laws.law import Breach, Outcome
from ..spec import Path
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
        return ask(self.law, recording, self.path)

    def _found(self, breach: Breach) -> Found:
        symptom = Broken(breach.kind, breach.found > breach.high)
        return Found(breach.event, breach.qid, symptom)
