"""The results of tails as the engine plays them: which rows they are, and which finish each one caused."""

from __future__ import annotations

from ...recorders.schema import Kind
from ..decisions import decisions
from ..tails import tails
from .tape import Tape


class TailRows:
    """Tails by row of `result_rows`.

    An extend's result is recorded after it has been processed, so it comes after the finishes that
    it causes. A tail that ends its request is therefore played at the finish.
    """

    def __init__(self, tape: Tape) -> None:
        recording = tape.recording
        answered = tails(recording).answered
        self.launch: list[int] = recording.results.launch[recording.owner(Kind.RESULT)].tolist()
        decided = decisions(recording)
        live = answered[decided.row]
        # A row of `finishes`, or `decisions.GOES_ON` or `LOST`. A stale tail decides nothing.
        self.finish: dict[int, int] = dict(
            zip(decided.row[live].tolist(), decided.finish[live].tolist(), strict=True)
        )
        self.ended: dict[int, int] = {
            finish: row for row, finish in self.finish.items() if finish >= 0
        }
        self.rows = frozenset[int](answered.nonzero()[0].tolist())
