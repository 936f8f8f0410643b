"""One process of a `crew`: reads a recording, then answers one job after the other, until its input ends.

python -m specdiff.replay.lift.crewman FILE SIGNATURE
"""

from __future__ import annotations

import pickle
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ...recorders import hdf5
from ..quantity import Quantity
from .departure import Departure, Expected
from .engine import replay
from .link import Books
from .surface import Surface
from .tape import Tape
from .tracks import Values


@dataclass(frozen=True, slots=True)
class Job:
    """`expected`: a pickled `Expected`; the replay stops where it is seen to depart from that."""

    surface: Surface
    wanted: frozenset[Quantity]
    expected: Path | None


@dataclass(frozen=True, slots=True)
class Said:
    """What a replay came to. `departed`: it was stopped, and what it noted is not whole."""

    values: Values
    reasons: dict[Quantity, str]
    departed: bool = False


def signature(file: Path) -> tuple[int, ...]:
    """Another one where the file was replaced or written to."""
    now = file.stat()
    return now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns


def main() -> None:
    """Of the process. Arguments: the file, and its `signature` as the crew has seen it."""
    file = Path(sys.argv[1])
    tape = Tape.of(hdf5.load(file))
    if repr(signature(file)) != sys.argv[2]:
        return  # it may be another recording
    while True:
        try:
            job: Job = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            said = _answer(job, tape)
        except Exception:  # noqa: BLE001 (the caller meets it, too, and says so)
            said = None
        pickle.dump(said, sys.stdout.buffer)
        sys.stdout.buffer.flush()


def _answer(job: Job, tape: Tape) -> Said:
    watch = None if job.expected is None else Departure(_expected(job.expected))
    tracks = replay(Books(job.surface), tape.recording, job.wanted, watch, tape=tape)
    if watch is not None and watch.found:
        return Said({}, {}, departed=True)
    return Said(tracks.values, tracks.reasons)


@lru_cache(maxsize=1)
def _expected(file: Path) -> Expected:
    found: Expected = pickle.loads(file.read_bytes())  # our own, of a moment ago
    return found
