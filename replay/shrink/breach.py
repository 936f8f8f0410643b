"""The other question that shrinking asks: is this law still broken, and in the same way?"""

from __future__ import annotations

from dataclasses import dataclass

from ...recorders.errors import NoVerdictError
from ...recorders.recording import Recording
from ...recorders.schema import Kind
from ..laws.ask import ask, law_of
from ..laws.law import Outcome
from ..spec import Path
from .symptom import Found


@dataclass(frozen=True, slots=True)
class Broken:
    """What two breaches of one sort have in common: no request, no step, no number."""

    kind: Kind
    counted: str
    too_many: bool  # or too few


def broken(outcome: Outcome) -> Broken | None:
    """What the first breach is one of."""
    if (breach := outcome.first) is None:
        return None
    return Broken(breach.kind, breach.counted, breach.found > breach.high)


class LawQuestion:
    """Where does a path break this law first? Known violations count, too, where there is no other."""

    def __init__(self, path: Path, law: str) -> None:
        self.path, self.law = path, law_of(law)

    def __call__(self, recording: Recording) -> Found | None:
        """None: it does not, or cannot run here."""
        try:
            outcome = self.outcome(recording)
        except NoVerdictError:
            return None
        symptom = broken(outcome)
        if symptom is None or outcome.first is None:
            return None
        return Found(outcome.first.event, outcome.first.qid, symptom)

    def outcome(self, recording: Recording) -> Outcome:
        return ask(self.law, recording, self.path)
