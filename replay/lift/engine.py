"""Replays lifted books over a recording, one event at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection
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

_WATCHED = 2048  # events from one look to the next
_ROWS = frozenset({Quantity.ROUTED_EXPERTS, Quantity.INDEXER_TOPK})


class Watch(Protocol):
    """Looks at what has been written so far; true where nothing more needs to be known."""

    def __call__(self, tracks: Tracks) -> bool: ...


def optional(wanted: Collection[Quantity]) -> frozenset[Quantity]:
    """Of the quantities that nothing else depends on and that cost: which ones are computed for these."""
    chosen = frozenset(wanted)
    return (_ROWS if chosen & _ROWS else frozenset()) | (chosen & {Quantity.FINISH})


def replay(
    books: Books,
    recording: Recording,
    wanted: Collection[Quantity] = tuple(Quantity),
    watch: Watch | None = None,
    until: int | None = None,
    tape: Tape | None = None,
) -> Tracks:
    """Everything these books compute. Raises CannotRunError where they need what a recording does not hold.

    `wanted`: what is `optional` is left out where nobody wants it. `until`: the last event that counts.
    `tape`: of this recording, where several replays share it.
    """
    tape = tape or Tape.of(recording)
    tracks = Tracks(tape)
    handlers = _handlers(Stage(books, recording), tape, tracks, optional(wanted))
    nothing: tuple[Handler, ...] = ()
    for place, (kind, ref) in enumerate(tape):
        for handle in handlers.get(kind, nothing):
            handle(ref)
        if place == until or (watch and place % _WATCHED == _WATCHED - 1 and watch(tracks)):
            break
    return tracks


Handler = Callable[[int], None]


def _handlers(
    stage: Stage, tape: Tape, tracks: Tracks, wanted: frozenset[Quantity]
) -> dict[Kind, tuple[Handler, ...]]:
    """Who deals with the events of a kind, in order; a handler takes the event's row in the kind's table."""
    lives, batches = Lives(stage, tape, tracks), Batches(stage, tape, tracks)
    rows, finishing = Rows(stage, tape, tracks), Finishing(stage, tape, tracks)
    releases = Releases(stage, tape, tracks)
    turns = Turns(stage, tape, tracks, releases)
    decides = (finishing.result,) if Quantity.FINISH in wanted else ()
    collects = (rows.finish,) if wanted & _ROWS else ()

    def forget(_: int) -> None:
        stage.forget()
        batches.forget()
        turns.forget()

    return {
        Kind.EXTEND: (lives.extend, batches.extend),
        Kind.PREPARE: (lambda ref: lives.prepare(ref, batches.prepare(ref)),),
        Kind.LAUNCH: (lives.launch, batches.launch),
        Kind.RESULT: (lives.result, *decides),
        Kind.FILTER: (batches.filter,),
        Kind.MERGE: (batches.merge,),
        Kind.FINISH: (lives.finish, *collects),
        Kind.RETRACT: (lives.retract,),
        Kind.RELEASE: (releases.release,),
        Kind.SESSION_SAVE: (turns.save,),
        Kind.SESSION_RESTORE: (turns.restore,),
        Kind.GAP: (forget,),
    }
