"""What the hunt checks of every recording: the laws, and that lifted equals observed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from lifting import against_observed
from specdiff.fixtures.rig.errors import RigError
from specdiff.fixtures.rig.script import Scenario
from specdiff.fixtures.rig.truth import Answer, check_answers
from specdiff.recorders.recording import Recording
from specdiff.replay.columns.shared import Columns
from specdiff.replay.exercised import exercised
from specdiff.replay.laws.check import check
from specdiff.replay.laws.law import State
from specdiff.replay.lift.link import Program
from specdiff.replay.observed import observed


@dataclass(frozen=True, slots=True)
class Wrong:
    """`what`: short, and the same for every scenario that shows it.

    `numbers`: where, and by how much.
    """

    what: str
    numbers: str

    def __str__(self) -> str:
        return f"{self.what}: {self.numbers}"


@dataclass
class HuntJudge:
    """Judges a play after each block of steps.

    It counts only whole plays, so that no value counts twice.
    """

    program: Program
    silenced: frozenset[str]
    compared: int = 0
    places: Counter[str] = field(default_factory=Counter)
    branches: Counter[str] = field(default_factory=Counter)

    def judge(self, recording: Recording, *, whole: bool = False) -> Wrong | None:
        columns = Columns(recording)
        outcomes = check(columns, observed(columns), self.silenced)
        differences = against_observed(recording, self.program)
        if whole:
            self.places.update({outcome.law.name: outcome.num_checked for outcome in outcomes})
            self.compared += sum(difference.num_compared for difference in differences.values())
            self.branches.update(exercised(recording))
            if (
                recording.stats is None
                or recording.stats.exceptions
                or recording.stats.dropped
                or recording.damage
            ):
                return Wrong("the recorder", f"{recording.stats} {recording.damage}")
        for outcome in outcomes:
            if outcome.state is State.BROKEN:
                return Wrong(f"law {outcome.law.name}", str(outcome.first))
        for quantity, difference in differences.items():
            if difference.differs.any():
                return Wrong(
                    f"lifted and observed differ in {quantity.value}",
                    f"{int(difference.differs.sum())} of {difference.num_compared} values",
                )
        return None


def wrong_answers(scenario: Scenario, answers: dict[str, Answer]) -> Wrong | None:
    """Check every answer, except those that sglang aborted because others filled a small pool."""
    asked = [
        request for request in scenario.requests if not _out_of_memory(answers.get(request.rid))
    ]
    try:
        check_answers(tuple(asked), answers, all_aborted=bool(scenario.abort_all_at))
    except RigError as error:
        return Wrong("the clients", str(error))
    return None


def _out_of_memory(answer: Answer | None) -> bool:
    reason = answer.finished_reason if answer and answer.aborted else None
    return reason is not None and str(reason.get("message")).startswith("Out of memory")
