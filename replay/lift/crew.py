"""Lifted replays in other processes: the first while this one still imports torch, then one for each core.

Nothing depends on them: where one fails, the caller replays for itself, and meets the error then.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import active_children, get_context
from pathlib import Path
from tempfile import NamedTemporaryFile

from ...recorders import hdf5
from ..quantity import Quantity
from ..spec import Lifted
from ..spec import Path as PathSpec
from .departure import Departure, Expected
from .engine import replay
from .link import Books
from .open import kept
from .surface import Surface
from .tape import Tape
from .tracks import Tracks, Values

_WORTH_IT = 1 << 19  # bytes of a recording: smaller ones are replayed before a process has started
_MOST = 8  # processes: each has the whole recording in memory


@dataclass(frozen=True, slots=True)
class Said:
    """What one replay came to. `departed`: it stopped where it was seen to differ, and what it noted is not whole."""

    sha256: str  # of the file that it read
    values: Values
    reasons: dict[Quantity, str]
    departed: bool = False


class Crew:
    """Replays of one recording, for the same quantities all of them."""

    def __init__(self, file: Path, wanted: Sequence[Quantity], size: int, shared: Path) -> None:
        """`shared`: a file that is there as long as the crew is."""
        self.wanted = frozenset(wanted)
        self._shared = shared
        self.sha256: str | None = None  # of the caller's recording: no other is answered for
        self._others = frozenset(active_children())  # somebody else's
        self._pool = ProcessPoolExecutor(size, get_context("spawn"), _read, (file.resolve(),))
        self._whole: dict[str, Future[Said]] = {}  # by the digest of the surface
        self._watched: dict[str, tuple[Surface, Future[Said]]] = {}

    def muster(self, others: int) -> None:
        """They start now, not when there is work for them."""
        for _ in range(others):
            with suppress(BrokenExecutor), _interrupts_are_ours():
                self._pool.submit(os.getpid)

    def begin_watched(
        self, paths: Sequence[PathSpec], expected: Expected, besides: Container[str]
    ) -> None:
        """Once: to replay as much of each as it takes to see it depart from what is expected. `besides`: digests known."""
        self._shared.write_bytes(pickle.dumps(expected))  # many megabytes: not once for each path
        for surface in _surfaces(paths):
            known = surface.digest in besides or surface.digest in self._watched
            if not known and (begun := self._submit(surface, self._shared)):
                self._watched[surface.digest] = surface, begun

    def begin_all(self, paths: Sequence[PathSpec]) -> None:
        for surface in _surfaces(paths):
            self.begin(surface)

    def begin(self, surface: Surface) -> None:
        """To replay all of it."""
        if surface.digest not in self._whole and (begun := self._submit(surface, None)):
            self._whole[surface.digest] = begun

    def tracks(self, surface: Surface, tape: Tape) -> Tracks | None:
        """All that it noted; None where that was not begun here, or failed."""
        said = self._said(self._whole.get(surface.digest))
        return None if said is None else self._tracks(said, tape)

    def departs(self, surface: Surface, tape: Tape) -> tuple[bool, Tracks | None]:
        """Whether it was seen to depart, and all that it noted if not; as `tracks`."""
        _, begun = self._watched.get(surface.digest, (None, None))
        while begun is not None and not begun.done():
            self._look_ahead()
        said = self._said(begun)
        if said is None or said.departed:
            return said is not None, None
        return False, self._tracks(said, tape)

    def close(self) -> None:
        for process in set(active_children()) - self._others:
            process.terminate()
        self._pool.shutdown(cancel_futures=True)

    def _look_ahead(self) -> None:
        """Wait for somebody; of the first that departs, all will be wanted: a core that is idle may begin."""
        wait([one for _, one in self._watched.values() if not one.done()], None, FIRST_COMPLETED)
        for surface, begun in self._watched.values():
            if begun.done() and (said := self._said(begun)) and said.departed:
                self.begin(surface)
                return

    def _submit(self, surface: Surface, expected: Path | None) -> Future[Said] | None:
        with suppress(BrokenExecutor), _interrupts_are_ours():
            return self._pool.submit(_replay, surface, self.wanted, expected)
        return None

    def _said(self, begun: Future[Said] | None) -> Said | None:
        if begun is None or begun.exception() is not None:
            return None
        said = begun.result()
        return said if said.sha256 == self.sha256 else None

    def _tracks(self, said: Said, tape: Tape) -> Tracks:
        return Tracks(tape, self.wanted, said.values, said.reasons)


@contextmanager
def crew_of(
    file: Path, wanted: Sequence[Quantity], paths: Sequence[PathSpec]
) -> Iterator[Crew | None]:
    """A crew that has begun with these paths; None where there is little to gain. It goes when the block ends."""
    size = min(_cores(), _MOST)
    large = file.is_file() and file.stat().st_size >= _WORTH_IT
    if not large or size == 1 or not any(isinstance(path, Lifted) for path in paths):
        yield None
        return
    with NamedTemporaryFile(prefix="specdiff-") as shared:
        crew = Crew(file, wanted, size, Path(shared.name))
        try:
            crew.begin_all(paths)
            crew.muster(size - 1)
            yield crew
        finally:
            crew.close()


def _cores() -> int:
    """That this process may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return allowed or os.cpu_count() or 1


def _surfaces(paths: Sequence[PathSpec]) -> Iterator[Surface]:
    """Those that are at hand: what is yet to be fetched or lifted waits for its turn, as does what cannot be."""
    for path in paths:
        if isinstance(path, Lifted) and (surface := kept(path)) is not None:
            yield surface


@contextmanager
def _interrupts_are_ours() -> Iterator[None]:
    """Processes that start in here never see a Ctrl-C, from their first instruction on; one that comes now is not lost."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _read(file: Path) -> None:
    """In the other process, once."""
    global _sha256, _tape
    with suppress(Exception):  # without a tape every replay fails
        _tape = Tape.of(hdf5.load(file))
        _sha256 = hashlib.sha256(file.read_bytes()).hexdigest()


_sha256: str
_tape: Tape


@lru_cache(maxsize=1)
def _expected(file: Path) -> Expected:
    with file.open("rb") as pickled:
        found: Expected = pickle.load(pickled)  # our own, of a moment ago
    return found


def _replay(surface: Surface, wanted: frozenset[Quantity], expected: Path | None) -> Said:
    watch = None if expected is None else Departure(_expected(expected))
    tracks = replay(Books(surface), _tape.recording, wanted, watch, tape=_tape)
    if watch is not None and watch.found:
        return Said(_sha256, {}, {}, departed=True)
    return Said(_sha256, tracks.values, tracks.reasons)
