"""Replay the collection of routed rows: which rows the lifted functions ask for when a request finishes."""

from __future__ import annotations

from ...recorders.schema import NONE64, Kind
from ..quantity import Quantity
from .roles import Role
from .scheduler import Span
from .stage import Stage
from .tape import Tape
from .tracks import Place, Tracks

_COLLECTED = (
    (Role.EXPERTS, Quantity.ROUTED_EXPERTS, "experts_state", "routed_experts"),
    (Role.INDEXER, Quantity.INDEXER_TOPK, "indexer_state", "indexer_topk"),
)


class Rows:
    """Collects rows.

    A server without a capturer collects nothing on any path: not captured, never 0 rows.
    """

    def __init__(self, stage: Stage, tape: Tape, tracks: Tracks) -> None:
        self._stage, self._tape, self._tracks = stage, tape, tracks
        for role, quantity, _, _ in _COLLECTED:
            if not stage.has(role):
                tracks.reasons[quantity] = f"{stage.program.name} has no {role.value} function"

    def finish(self, ref: int) -> None:
        """Call the collecting functions for one finish and write the rows that they chose."""
        table = self._tape.events[Kind.FINISH]
        request = self._stage.requests[table.qid[ref]]
        for role, quantity, state, attribute in _COLLECTED:
            if self._stage.has(role) and getattr(table, state)[ref] != NONE64:
                self._stage.call(role, self._stage.scheduler, request)
                self._put(quantity, ref, getattr(request, attribute))

    def _put(self, quantity: Quantity, ref: int, rows: Span | None) -> None:
        place = Place(quantity, Kind.FINISH, False)
        if rows is None:
            self._tracks.put_parts(place, ref, 0, 0, 0)
        elif rows.known:
            self._tracks.put_parts(place, ref, 1, rows.start, rows.stop)
