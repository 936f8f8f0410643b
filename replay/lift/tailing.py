"""The results of tails as the engine plays them: which rows they are, and which finish came of which."""

from __future__ import annotations

from ...recorders.schema import Kind
from ..decisions import decisions
from ..tails import tails
from .tape import Tape


class TailRows:
    """By row of `result_rows`.

    An extend's result is recorded when it has been processed, behind the finishes that it brings about: a tail that ends
    is played at its finish.
    """

    def __init__(self, tape: Tape) -> None:
        recording = tape.recording
        answered = tails(recording).answered
        self.launch: list[int] = recording.results.launch[recording.owner(Kind.RESULT)].tolist()
        made = decisions(recording)
        live = answered[made.row]
        # A row of `finishes`, else `decisions.GOES_ON` or `LOST`; a stale tail decides nothing.
        self.finish: dict[int, int] = dict(
            zip(made.row[live].tolist(), made.finish[live].tolist(), strict=True)
        )
        self.ended: dict[int, int] = {
            finish: row for row, finish in self.finish.items() if finish >= 0
        }
        self.rows = frozenset[int](answered.nonzero()[0].tolist())
