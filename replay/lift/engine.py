"""Replays lifted books over a recording, one event at a time."""

from __future__ import annotations

from ...recorders.recording import Recording
from ...recorders.schema import Kind
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


def replay(books: Books, recording: Recording) -> Tracks:
    """Everything these books compute. Raises CannotRunError where they need what a recording does not hold."""
    stage, tape, tracks = Stage(books, recording), Tape.of(recording), Tracks()
    lives, batches = Lives(stage, tape, tracks), Batches(stage, tape, tracks)
    rows, finishing = Rows(stage, tape, tracks), Finishing(stage, tape, tracks)
    releases = Releases(stage, tape, tracks)
    turns = Turns(stage, tape, tracks, releases)
    for kind, ref in tape:
        if kind is Kind.EXTEND:
            lives.extend(ref)
            batches.extend(ref)
        elif kind is Kind.PREPARE:
            lives.prepare(ref, batches.prepare(ref))
        elif kind is Kind.LAUNCH:
            lives.launch(ref)
            batches.launch(ref)
        elif kind is Kind.RESULT:
            lives.result(ref)
            finishing.result(ref)
        elif kind is Kind.FILTER:
            batches.filter(ref)
        elif kind is Kind.MERGE:
            batches.merge(ref)
        elif kind is Kind.FINISH:
            lives.finish(ref)
            rows.finish(ref)
        elif kind is Kind.RETRACT:
            lives.retract(ref)
        elif kind is Kind.RELEASE:
            releases.release(ref)
        elif kind is Kind.SESSION_SAVE:
            turns.save(ref)
        elif kind is Kind.SESSION_RESTORE:
            turns.restore(ref)
        elif kind is Kind.GAP:
            stage.forget()
            batches.forget()
            turns.forget()
    return tracks
