"""Delta debugging of a recording: keep the fewest requests, then the fewest steps, that still show
the divergence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...recorders.cut import Cutter
from ...recorders.recording import Recording
from ...recorders.schema import Kind
from .ddmin import ddmin
from .symptom import Occurrence

Asks = Callable[[Recording], Occurrence | None]
Mask = NDArray[np.bool_]

_MAX_LATE = 2  # steps: under overlap a result comes one step after its launch


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A part of the whole recording: masks of the kept requests (by qid) and events (by index)."""

    requests: Mask
    events: Mask


@dataclass(frozen=True, slots=True)
class ShrinkProgress:
    """How far shrinking has come: trials so far, and the size of the best part."""

    trials: int
    num_requests: int
    num_steps: int
    num_events: int


class Shrinking:
    """The search for a small part of one recording.

    At any time, `best` is the smallest part so far that still shows `found`.
    """

    def __init__(
        self,
        recording: Recording,
        source: str,
        question: Asks,
        found: Occurrence,
        tell: Callable[[ShrinkProgress], None],
    ) -> None:
        """`found` is the question's answer for the whole recording; `source` is its file's sha256."""
        self._cutter = Cutter(recording, source)
        self._question, self.found, self._tell = question, found, tell
        self._steps = recording.events.iteration
        self._trials = 0
        self.best = Part(
            np.ones(len(recording.rids), dtype=bool), np.ones(len(self._steps), dtype=bool)
        )

    def run(self) -> None:
        """Shrink until the result is 1-minimal: no single request or step can be left out."""
        self._cut_tail()
        if self.found.qid is not None:
            self._shows(Part(self._of((self.found.qid,)), self.best.events))
        while True:
            before = self.progress()
            requests = tuple(np.flatnonzero(self.best.requests).tolist())
            ddmin(requests, self._shows_requests)
            ddmin(self.steps(self.best), self._shows_steps)
            now = self.progress()
            if (now.num_requests, now.num_steps) == (before.num_requests, before.num_steps):
                return

    def recording(self) -> Recording:
        """Return the best part so far as a recording."""
        return self._cutter(self.best.requests, self.best.events)

    def without_request(self, qid: int) -> Part:
        return Part(self.best.requests & ~self._of((qid,)), self.best.events)

    def without_step(self, step: int) -> Part:
        return Part(self.best.requests, self.best.events & (self._steps != step))

    def shows(self, part: Part) -> bool:
        """Whether the first divergence in this part is of the same kind, for the same reason."""
        self._trials += 1
        answer = self._question(self._cutter(part.requests, part.events))
        return answer is not None and answer.symptom == self.found.symptom

    def steps(self, part: Part) -> tuple[int, ...]:
        """Return the scheduler iterations from which this part keeps at least one event."""
        return tuple(np.unique(self._steps[self._events(part)]).tolist())

    def progress(self) -> ShrinkProgress:
        return ShrinkProgress(
            self._trials,
            int(self.best.requests.sum()),
            len(self.steps(self.best)),
            int(self._events(self.best).sum()),
        )

    def _cut_tail(self) -> None:
        """Cut off everything after the divergence that is not needed.

        Few later events can affect a value: the rest of its step, and the results of the launches
        that were in flight.
        """
        places, here = np.arange(len(self._steps)), int(self._steps[self.found.event])
        ends = (self._steps <= here + late for late in range(_MAX_LATE + 1))
        for left in (places <= self.found.event, *ends):
            if self._shows(Part(self.best.requests, self.best.events & left)):
                return

    def _shows(self, part: Part) -> bool:
        if not self.shows(part):
            return False
        self.best = part
        self._tell(self.progress())
        return True

    def _shows_requests(self, qids: Sequence[int]) -> bool:
        return self._shows(Part(self._of(qids), self.best.events))

    def _shows_steps(self, steps: Sequence[int]) -> bool:
        return self._shows(Part(self.best.requests, self.best.events & np.isin(self._steps, steps)))

    def _of(self, qids: Sequence[int]) -> Mask:
        return np.isin(np.arange(len(self.best.requests)), qids)

    def _events(self, part: Part) -> Mask:
        kinds = self._cutter.recording.events.kind
        concerned = self._cutter.concerned(part.requests)
        events: Mask = part.events & concerned & (kinds != Kind.GAP)
        return events
