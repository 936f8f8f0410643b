"""The test for shrinking to a breach: is this law still broken, and in the same way?"""

from __future__ import annotations

from dataclasses import dataclass

from ...recorders.errors import NoVerdictError
from ...recorders.recording import Recording
from ...recorders.schema import Kind
from ..laws.check_one import check_law, law_of
from ..laws.law import LawOutcome
from ..spec import Path
from .symptom import Occurrence


@dataclass(frozen=True, slots=True)
class Broken:
    """The kind of a breach, without its request, step and numbers, so that two breaches can be equal."""

    kind: Kind
    counted: str
    too_many: bool  # else too few


def broken(outcome: LawOutcome) -> Broken | None:
    """Return the kind of the first breach, or None if there is no breach."""
    if (breach := outcome.first) is None:
        return None
    return Broken(breach.kind, breach.counted, breach.found > breach.high)


class LawQuestion:
    """Finds where a path first breaks a law. Known violations count only if there is no other breach."""

    def __init__(self, path: Path, law: str) -> None:
        self.path, self.law = path, law_of(law)

    def __call__(self, recording: Recording) -> Occurrence | None:
        """Return None if the path does not break the law, or cannot run this recording."""
        try:
            outcome = self.outcome(recording)
        except NoVerdictError:
            return None
        symptom = broken(outcome)
        if symptom is None or outcome.first is None:
            return None
        return Occurrence(outcome.first.event, outcome.first.qid, symptom)

    def outcome(self, recording: Recording) -> LawOutcome:
        return check_law(self.law, recording, self.path)
