"""Open claims: slots that this path's prepares committed for results still to come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...recorders.schema import Kind
from .replay_state import ReplayState
from .standins.base import LIMIT
from .standins.request import Request
from .tape import Tape


class Claims:
    """Tracks claims from what this path's prepares added, never from the recording.

    Only settled lengths use them.
    """

    def __init__(self, state: ReplayState, tape: Tape) -> None:
        self._requests, self._tape = state.requests, tape
        self._launch = tape.events[Kind.LAUNCH].launch
        self._launched: dict[int, dict[int, tuple[int, int] | None]] = {}  # by launch, then by qid

    def open(self, reqs: Sequence[Request], before: Sequence[int], after: Sequence[int]) -> None:
        """Open the claims of one prepare.

        `before` and `after` are the committed lengths around it.
        """
        for request, was, now in zip(reqs, before, after, strict=True):
            claim = now - was
            request.claims += claim
            request.prepared = (request.incarnation, claim)

    def launch(self, ref: int) -> None:
        """Remember the prepare of each request in a launch, so that its result can close the right claim."""
        requests, qids = self._requests, self._tape.qids(Kind.LAUNCH, ref)
        self._launched[self._launch[ref]] = {qid: requests[qid].prepared for qid in qids}

    def close(self, launch: int, reqs: Iterable[Request]) -> None:
        """Close the claims of one launch: its results have arrived."""
        launched = self._launched.get(launch, {})
        for request in reqs:
            prepared = launched.get(request.qid)
            if prepared is not None and prepared[0] == request.incarnation:
                request.claims -= prepared[1]

    @staticmethod
    def settled(reqs: Sequence[Request], lengths: Sequence[int]) -> list[int]:
        """Return the committed lengths without open claims. Unknown lengths stay unknown."""
        return [
            length - request.claims if -LIMIT < length < LIMIT else length
            for length, request in zip(lengths, reqs, strict=True)
        ]
