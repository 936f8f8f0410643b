"""Replays lifted books over a recording, one event at a time."""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Protocol

from ...recorders.recording import Recording
from ...recorders.schema import Kind
from ..quantity import Quantity
from .finishing import Finishing
from .link import Books
from .lives import Lives
from .release import Releases
from .rows import Rows
from .stage import Stage
from .sums import Batches
from .tape import Tape
from .tracks import Tracks
from .turns import Turns

# Events played before the first look, and at most from one look to the next: ever longer, as most departures show early.
_FIRST_LOOK, _LOOK = 64, 4096
_ROWS = frozenset({Quantity.ROUTED_EXPERTS, Quantity.INDEXER_TOPK})
_ALONE = frozenset({Quantity.FINISH, Quantity.SEQ_LENS_SUM})


class Watch(Protocol):
    """Looks at what has been written so far; true where nothing more needs to be known."""

    def __call__(self, tracks: Tracks) -> bool: ...


def optional(wanted: Collection[Quantity]) -> frozenset[Quantity]:
    """Of the quantities that nothing else depends on and that cost: which ones are computed for these."""
    chosen = frozenset(wanted)
    return (_ROWS if chosen & _ROWS else frozenset()) | (chosen & _ALONE)


@contextmanager
def _no_collector() -> Iterator[None]:
    """A replay makes millions of objects and hardly a circle of them: looking for circles is a fifth of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_no_collector()
def replay(
    books: Books,
    recording: Recording,
    wanted: Collection[Quantity] = tuple(Quantity),
    watch: Watch | None = None,
    until: int | None = None,
    tape: Tape | None = None,
) -> Tracks:
    """Everything these books compute. Raises CannotRunError where they need what a recording does not hold.

    `wanted`: of other quantities little is noted, and what is `optional` is not computed. `until`: the last event that counts.
    `tape`: of this recording, where several replays share it.
    """
    tape = tape or Tape.of(recording)
    tracks = Tracks(tape, frozenset(wanted))
    stage = Stage(books, recording)
    handlers = _handlers(stage, tape, tracks, optional(wanted))
    _play(handlers, tape, until, lambda: watch is not None and watch(tracks))
    stage.requests.clear()  # in a circle with the stage, they would stay until the collector comes
    return tracks


Handler = Callable[[int], None]


def _play(
    handlers: dict[Kind, tuple[Handler, ...]],
    tape: Tape,
    until: int | None,
    over: Callable[[], bool],
) -> None:
    played, look = 0, _FIRST_LOOK
    for place, (kind, ref) in enumerate(tape):
        for handle in handlers[kind]:
            handle(ref)
        if place == until:
            return
        played += bool(handlers[kind])  # a queue of arrivals says nothing
        if played == look:
            if over():
                return
            look += min(look, _LOOK)


def _handlers(
    stage: Stage, tape: Tape, tracks: Tracks, wanted: frozenset[Quantity]
) -> dict[Kind, tuple[Handler, ...]]:
    """Who deals with the events of a kind, in order; a handler takes the event's row in the kind's table."""
    lives, batches = Lives(stage, tape, tracks), Batches(stage, tape, tracks)
    releases = Releases(stage, tape, tracks)
    turns = Turns(stage, tape, tracks, releases)
    # No prepare goes by the lengths of its batch: to one that did, they would be unknown, and what it makes of them too.
    sums = Quantity.SEQ_LENS_SUM in wanted
    prepared = batches.prepare if sums else batches.members

    def forget(_: int) -> None:
        stage.forget()
        batches.forget()
        turns.forget()

    def begin(ref: int) -> None:
        lives.seed(ref)
        turns.seed(ref)

    books: dict[Kind, Handler] = {
        Kind.EXTEND: lives.extend,
        Kind.SEED: begin,
        Kind.PREPARE: lambda ref: lives.prepare(ref, prepared(ref)),
        Kind.RESULT: lives.result,
        Kind.FINISH: lives.finish,
        Kind.RETRACT: lives.retract,
        Kind.RELEASE: releases.release,
        Kind.SESSION_SAVE: turns.save,
        Kind.SESSION_RESTORE: turns.restore,
        Kind.GAP: forget,
    }
    if lives.claims is not None:
        books[Kind.LAUNCH] = lives.claims.launch
    lengths: dict[Kind, Handler] = {
        Kind.EXTEND: batches.extend,
        Kind.SEED: batches.seed,
        Kind.LAUNCH: batches.launch,
        Kind.FILTER: batches.filter,
        Kind.MERGE: batches.merge,
    }
    parts = [books]
    if sums:
        parts.append(lengths)
    if Quantity.FINISH in wanted:
        parts.append({Kind.RESULT: Finishing(stage, tape, tracks).result})
    if wanted & _ROWS:
        parts.append({Kind.FINISH: Rows(stage, tape, tracks).finish})
    return {kind: tuple(part[kind] for part in parts if kind in part) for kind in Kind}
