"""Replay the release of a request's KV: how much of it the lifted release function hands to the cache."""

from __future__ import annotations

import inspect

from ...recorders.schema import Kind
from ..quantity import Quantity
from .missing import CannotRunError
from .replay_state import ReplayState
from .roles import Role
from .standins.base import UNKNOWN_LEN, known
from .standins.batch import TreeCache
from .standins.request import Request
from .tape import Tape, present
from .tracks import TrackKey, Tracks

_ALLOCATED = TrackKey(Quantity.KV_ALLOCATED_LEN, Kind.RELEASE, False)
_RELEASED = TrackKey(Quantity.RELEASED_LEN, Kind.RELEASE, True)


class ReleaseReplay:
    """Plays releases.

    The tree cache is not lifted, because what it keeps and frees is not a book.
    """

    def __init__(self, state: ReplayState, tape: Tape, tracks: Tracks) -> None:
        self._state, self._tracks = state, tracks
        self._tree = state.tree
        self._table = tape.events[Kind.RELEASE]
        self._named: dict[str, bool] = {}
        absent = [role for role in (Role.RELEASE, Role.COMMIT_LENGTH) if not state.has(role)]
        if absent:
            tracks.reasons[Quantity.RELEASED_LEN] = (
                f"{state.program.name} has no known {absent[0].value} function"
            )
            return
        named = inspect.signature(state.linked.role(Role.RELEASE)).parameters
        # Whether the tree keeps the KV (from 0.5.22 on: `checkpoint`) does not change how much is
        # released.
        self._named = {name: False for name in ("checkpoint", "is_insert") if name in named}

    def release(self, ref: int) -> None:
        """Write the lengths of one release; play it unless a session already has."""
        table = self._table
        request = self._state.requests[table.qid[ref]]
        if present(table.allocated[ref]) is None:  # the request held no KV
            self._tracks.put(_RELEASED, ref, None)
            return
        if request.given is None:
            self.give(request, self._tree)
        assert request.given is not None
        allocated, released = request.given
        self._tracks.put(_ALLOCATED, ref, allocated)
        if Quantity.RELEASED_LEN not in self._tracks.reasons:
            self._tracks.put(_RELEASED, ref, released)
        request.given = None
        request.lets_kv_go()

    def give(self, request: Request, tree: TreeCache, *, sure: bool = True) -> None:
        """Play the release of a request to this cache and store the outcome in `request.given`.

        If not `sure`, the committed length of the request is unknown.
        """
        if not known(request.kv_allocated_len):  # its extend is not in the recording
            request.registers_kv()
            self._state.holds_kv_again(request)
        allocated = request.kv_allocated_len
        # If the length is unknown, the minimum of it and a known length would still look known.
        knows = sure and known(request.kv_committed_len)
        request.given = allocated, self._released(request, tree) if knows else UNKNOWN_LEN

    def _released(self, request: Request, tree: TreeCache) -> int | None:
        """Return the released length; None if the release asks for no length because its session keeps the KV."""
        if not self._state.has(Role.RELEASE):
            return UNKNOWN_LEN
        try:
            self._state.call(Role.RELEASE, request, tree, **self._named)
        except CannotRunError:
            if not self._state.server_args.strip_thinking_cache:
                raise
            return UNKNOWN_LEN  # the thinking part of a retracted request is not recorded
        released, request.released = request.released, None
        return released
