"""Replay a lifted program over a recording, one event at a time."""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Protocol

from ...recorders.recording import Recording
from ...recorders.schema import Kind
from ..quantity import Quantity
from .batch_replay import BatchReplay
from .commit_replay import CommitReplay
from .finish_replay import FinishReplay
from .link import Program
from .release_replay import ReleaseReplay
from .replay_state import ReplayState
from .row_replay import RowReplay
from .session_replay import SessionReplay
from .tape import Tape
from .tracks import Tracks

# The number of events before the first check, and the most between two checks. The interval doubles
# up to that limit, because most departures show early.
_FIRST_LOOK, _LOOK = 64, 4096
_ROWS = frozenset({Quantity.ROUTED_EXPERTS, Quantity.INDEXER_TOPK})
_ALONE = frozenset({Quantity.FINISH, Quantity.SEQ_LENS_SUM})


class Watch(Protocol):
    """Looks at what has been written so far. Returns True if nothing more needs to be known."""

    def __call__(self, tracks: Tracks) -> bool: ...


def optional(wanted: Collection[Quantity]) -> frozenset[Quantity]:
    """Return which of the costly, independent quantities must be computed to have the `wanted` ones."""
    chosen = frozenset(wanted)
    return (_ROWS if chosen & _ROWS else frozenset()) | (chosen & _ALONE)


@contextmanager
def _no_collector() -> Iterator[None]:
    """Turn the garbage collector off: it finds few cycles among millions of objects and takes a fifth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_no_collector()
def replay(
    program: Program,
    recording: Recording,
    wanted: Collection[Quantity] = tuple(Quantity),
    watch: Watch | None = None,
    until: int | None = None,
    tape: Tape | None = None,
) -> Tracks:
    """Compute everything that this program computes.

    Raises CannotRunError if it needs what a recording does not hold.

    Quantities that are not `wanted` are noted only in part, and not computed at all if they are
    `optional`. `until` is the last event that counts. `tape` is this recording's tape, if several
    replays share it.
    """
    tape = tape or Tape.of(recording)
    tracks = Tracks(tape, frozenset(wanted))
    state = ReplayState(program, recording)
    handlers = _handlers(state, tape, tracks, optional(wanted))
    _play(handlers, tape, until, lambda: watch is not None and watch(tracks))
    tracks.called = state.called
    state.requests.clear()  # they form a cycle with the state and would stay until the next collection
    return tracks


Handler = Callable[[int], None]


def _play(
    handlers: dict[Kind, tuple[Handler, ...]],
    tape: Tape,
    until: int | None,
    over: Callable[[], bool],
) -> None:
    """Play the events in order, until one of them is the last or `over` says that the replay may stop."""
    played, look = 0, _FIRST_LOOK
    for place, (kind, ref) in enumerate(tape):
        for handle in handlers[kind]:
            handle(ref)
        if place == until:
            return
        played += bool(handlers[kind])  # events without a handler, such as arrivals, do not count
        if played == look:
            if over():
                return
            look += min(look, _LOOK)


def _handlers(
    state: ReplayState, tape: Tape, tracks: Tracks, wanted: frozenset[Quantity]
) -> dict[Kind, tuple[Handler, ...]]:
    """Return the handlers for each kind of event, in order.

    A handler takes the event's row in the kind's table.
    """
    commits, batches = CommitReplay(state, tape, tracks), BatchReplay(state, tape, tracks)
    releases = ReleaseReplay(state, tape, tracks)
    sessions = SessionReplay(state, tape, tracks, releases)
    # No known prepare uses its batch's lengths. For one that did, the lengths and its results would
    # be unknown.
    sums = Quantity.SEQ_LENS_SUM in wanted
    prepared = batches.prepare if sums else batches.members

    def forget(_: int) -> None:
        state.forget()
        batches.forget()
        sessions.forget()

    def begin(ref: int) -> None:
        commits.seed(ref)
        sessions.seed(ref)

    of_requests: dict[Kind, Handler] = {
        Kind.EXTEND: commits.extend,
        Kind.SEED: begin,
        Kind.PREPARE: lambda ref: commits.prepare(ref, prepared(ref)),
        Kind.RESULT: commits.result,
        Kind.FINISH: commits.finish,
        Kind.RETRACT: commits.retract,
        Kind.RELEASE: releases.release,
        Kind.SESSION_SAVE: sessions.save,
        Kind.SESSION_RESTORE: sessions.restore,
        Kind.GAP: forget,
    }
    if commits.claims is not None:
        of_requests[Kind.LAUNCH] = commits.claims.launch
    of_batches: dict[Kind, Handler] = {
        Kind.EXTEND: batches.extend,
        Kind.SEED: batches.seed,
        Kind.LAUNCH: batches.launch,
        Kind.FILTER: batches.filter,
        Kind.MERGE: batches.merge,
    }
    parts = [of_requests]
    if sums:
        parts.append(of_batches)
    if Quantity.FINISH in wanted:
        parts.append({Kind.RESULT: FinishReplay(state, tape, tracks).result})
    if wanted & _ROWS:
        parts.append({Kind.FINISH: RowReplay(state, tape, tracks).finish})
    return {kind: tuple(part[kind] for part in parts if kind in part) for kind in Kind}
