"""Replay the collection of routed rows: which rows the lifted functions ask for when a request finishes."""

from __future__ import annotations

from ...recorders.schema import NONE64, Kind
from ..quantity import Quantity
from .replay_state import ReplayState
from .roles import Role
from .standins.scheduler import Span
from .tape import Tape
from .tracks import TrackKey, Tracks

_COLLECTED = (
    (Role.EXPERTS, Quantity.ROUTED_EXPERTS, "experts_state", "routed_experts"),
    (Role.INDEXER, Quantity.INDEXER_TOPK, "indexer_state", "indexer_topk"),
)


class RowReplay:
    """Plays the collection of rows at each finish.

    A server without a capturer collects nothing on any path: not captured, never 0 rows.
    """

    def __init__(self, state: ReplayState, tape: Tape, tracks: Tracks) -> None:
        self._state, self._tape, self._tracks = state, tape, tracks
        for role, quantity, _, _ in _COLLECTED:
            if not state.has(role):
                tracks.reasons[quantity] = f"{state.program.name} has no {role.value} function"

    def finish(self, ref: int) -> None:
        """Call the collecting functions for one finish and write the rows that they chose."""
        table = self._tape.events[Kind.FINISH]
        request = self._state.requests[table.qid[ref]]
        for role, quantity, state, attribute in _COLLECTED:
            if self._state.has(role) and getattr(table, state)[ref] != NONE64:
                self._state.call(role, self._state.scheduler, request)
                self._put(quantity, ref, getattr(request, attribute))

    def _put(self, quantity: Quantity, ref: int, rows: Span | None) -> None:
        key = TrackKey(quantity, Kind.FINISH, False)
        if rows is None:
            self._tracks.put_parts(key, ref, 0, 0, 0)
        elif rows.known:
            self._tracks.put_parts(key, ref, 1, rows.start, rows.stop)
