"""Replay streaming sessions: what the lifted functions let a session keep of a turn and the next turn inherit."""

from __future__ import annotations

from ...recorders.schema import Kind, Reason
from ..quantity import Quantity
from .release_replay import ReleaseReplay
from .replay_state import ReplayState
from .roles import Role
from .standins.base import UNKNOWN_LEN
from .standins.request import Request
from .standins.session import MatchPrefixParams, Session, Sessions, SessionTree, holds_known
from .tape import Tape, present
from .tracks import TrackKey, Tracks

_SAVED = TrackKey(Quantity.SESSION_COMMITTED, Kind.SESSION_SAVE, True)
_RESTORED = TrackKey(Quantity.SESSION_COMMITTED, Kind.SESSION_RESTORE, True)
_NEEDED = (Role.SESSION_SAVE, Role.SESSION_RESTORE, Role.RELEASE)


class SessionReplay:
    """Plays turns.

    The recording says whether a turn found KV of its session; this path computes how much.
    """

    def __init__(
        self, state: ReplayState, tape: Tape, tracks: Tracks, releases: ReleaseReplay
    ) -> None:
        self._state, self._tape, self._tracks, self._releases = state, tape, tracks, releases
        self._sessions: Sessions = state.linked.types[Sessions](state.server_args.page_size)
        self._tree = SessionTree(state.server_args.page_size, self._keeps)
        self._abort = state.linked.named("FINISH_ABORT") or object
        self._borrowing: set[int] = set()  # requests that use KV that their session had kept
        # Requests begun by a seed: it is unknown whether they use KV of a session.
        self._under_way: set[int] = set()
        self._known: set[int] = set()  # sessions for which this path knows what they keep
        if absent := [role.value for role in _NEEDED if not state.has(role)]:
            tracks.reasons[Quantity.SESSION_COMMITTED] = (
                f"{state.program.name} has no known {absent[0]} function"
            )

    def save(self, ref: int) -> None:
        """Play a save.

        The release in progress offers the turn to its session first, so that release is played
        here.
        """
        if Quantity.SESSION_COMMITTED in self._tracks.reasons:
            return
        table = self._tape.events[Kind.SESSION_SAVE]
        request, session = self._turn(Kind.SESSION_SAVE, ref), table.session[ref]
        request.origin_input_ids = range(table.origin_len[ref])
        request.output_ids = range(table.output_len[ref])
        request.finished_len = present(table.finished_len[ref])
        request.finished_reason = self._reason(present(table.reason[ref]))
        borrowing = request.qid in self._borrowing
        self._borrowing.discard(request.qid)
        knows = holds_known(request) and request.qid not in self._under_way
        if not borrowing or not knows:
            self._sessions.slots.pop(session, None)
        if not knows:
            self._known.discard(session)
            self._releases.give(request, self._tree, sure=False)
            request.kv_committed_len = UNKNOWN_LEN  # its KV may belong to its session now
            return
        if not borrowing and self._state.has(Role.SESSION_TAKE):
            self._state.call(Role.SESSION_TAKE, self._sessions, request)
        self._releases.give(request, self._tree)
        self._known.add(session)
        slot = self._sessions.slots.get(session)
        self._tracks.put(_SAVED, ref, None if slot is None else slot.committed)

    def restore(self, ref: int) -> None:
        """Play a restore.

        The noted value is None if this path's session has nothing to give although the server's
        had.
        """
        if Quantity.SESSION_COMMITTED in self._tracks.reasons:
            return
        table = self._tape.events[Kind.SESSION_RESTORE]
        request = self._turn(Kind.SESSION_RESTORE, ref)
        if table.session[ref] not in self._known:
            request.kv_committed_len = request.kv_allocated_len = UNKNOWN_LEN
            return
        self._under_way.discard(request.qid)
        asked = MatchPrefixParams(request, table.key_len[ref])
        if self._state.call(Role.SESSION_RESTORE, self._sessions, asked) is None:
            self._tracks.put(_RESTORED, ref, None)
            return
        self._borrowing.add(request.qid)
        self._tracks.put(_RESTORED, ref, request.kv_committed_len)

    def seed(self, ref: int) -> None:
        """Note the requests that were running when the recording began."""
        table = self._tape.rows_of[Kind.SEED]
        rows = self._tape.rows[Kind.SEED][ref]
        self._under_way |= {table.qid[row] for row in rows if table.begins[row]}

    def forget(self) -> None:
        """Forget everything, because events were lost and a turn may have ended among them."""
        self._under_way.clear()
        self._sessions.slots.clear()
        self._borrowing.clear()
        self._known.clear()

    def _turn(self, kind: Kind, ref: int) -> Request:
        """Return the request of a session event, as a turn of its session."""
        table = self._tape.events[kind]
        request = self._state.requests[table.qid[ref]]
        request.session, request.to_finish = Session(table.session[ref]), None
        return request

    def _reason(self, reason: int | None) -> object | None:
        """Return a finish reason.

        Sessions only distinguish aborts; None means that the request will be retracted.
        """
        if reason is None:
            return None
        return object.__new__(self._abort) if reason == Reason.ABORT else "recorded"

    def _keeps(self, request: Request) -> bool:
        """Whether the session keeps the turn. If not, the release continues as for any request.

        0.5.10 keeps every turn and returns nothing.
        """
        self._state.called.add(Role.SESSION_SAVE)
        return self._state.linked.role(Role.SESSION_SAVE)(self._sessions, request) is not False
