"""A worker process of a `worker_pool`: it reads a recording, then answers one job after another until its input ends.

`worker_pool` starts it by calling `main` with the arguments FILE SIGNATURE.
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
from .link import Program
from .surface import Surface
from .tape import Tape
from .tracks import TrackValues


@dataclass(frozen=True, slots=True)
class Job:
    """A replay to run.

    `expected` is a pickled `Expected`; the replay stops when it is seen to depart from that.
    """

    surface: Surface
    wanted: frozenset[Quantity]
    expected: Path | None


@dataclass(frozen=True, slots=True)
class ReplayOutcome:
    """The outcome of a replay.

    If `departed` is set, the replay was stopped and its values are incomplete.
    """

    values: TrackValues
    reasons: dict[Quantity, str]
    departed: bool = False


def signature(file: Path) -> tuple[int, ...]:
    """Return a value that changes if the file is replaced or written to."""
    now = file.stat()
    return now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns


def main() -> None:
    """Run the worker. Its arguments are the file and the file's `signature` as the pool saw it."""
    file = Path(sys.argv[1])
    tape = Tape.of(hdf5.load(file))
    if repr(signature(file)) != sys.argv[2]:
        return  # the file may now hold another recording
    while True:
        try:
            job: Job = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            outcome = _answer(job, tape)
        except Exception:  # noqa: BLE001 (the caller runs into the same error and reports it)
            outcome = None
        pickle.dump(outcome, sys.stdout.buffer)
        sys.stdout.buffer.flush()


def _answer(job: Job, tape: Tape) -> ReplayOutcome:
    watch = None if job.expected is None else Departure(_expected(job.expected))
    tracks = replay(Program(job.surface), tape.recording, job.wanted, watch, tape=tape)
    if watch is not None and watch.found:
        return ReplayOutcome({}, {}, departed=True)
    return ReplayOutcome(tracks.values, tracks.reasons)


@lru_cache(maxsize=1)
def _expected(file: Path) -> Expected:
    found: Expected = pickle.loads(file.read_bytes())  # written by the parent process
    return found
