"""A pool of worker processes that replay lifted paths.

The first replays run while this process still imports torch; later there is up to one worker per
core. Workers are only an optimization: if one fails, the caller runs the replay itself and then
meets the same error.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Container, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import IO

from ..quantity import Quantity
from ..spec import Lifted
from ..spec import Path as PathSpec
from . import worker_process
from .departure import Expected
from .open import kept
from .surface import Surface
from .tape import Tape
from .tracks import Tracks
from .worker_process import Job, ReplayOutcome, signature

_WORTH_IT = 1 << 19  # bytes; a smaller recording is replayed faster than a process starts
_MOST = 8  # processes; each has the whole recording in memory
MAX_PREFETCHED = 16  # replays that may begin before they are needed


class _Process:
    """A worker process (see `worker_process`).

    It prints nothing on Ctrl-C and exits when its input ends or we are killed.
    """

    def __init__(self, file: Path) -> None:
        main = f"from {worker_process.__name__} import main; main()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", main, str(file), repr(signature(file))],
            env={**os.environ, "PYTHONSAFEPATH": "1"},  # import nothing from the current folder
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def ask(self, job: Job) -> ReplayOutcome | None:
        """Run a job; None if the replay failed. Raises an exception if the process has exited."""
        to, answers = self._process.stdin, self._process.stdout
        assert to is not None and answers is not None
        pickle.dump(job, to)
        to.flush()
        outcome: ReplayOutcome | None = pickle.load(answers)
        return outcome

    def end(self) -> None:
        self._process.kill()
        pipes: Iterable[IO[bytes] | None] = (self._process.stdin, self._process.stdout)
        for pipe in filter(None, pipes):
            with suppress(OSError):  # unread data in the pipe
                pipe.close()
        self._process.wait()


class WorkerPool:
    """Replays of one recording, all for the same quantities.

    Call `confirm` before asking for results.
    """

    def __init__(self, file: Path, wanted: Sequence[Quantity], size: int, folder: Path) -> None:
        """`folder` belongs to this pool and must exist as long as it does.

        Raises OSError if no process can be started.
        """
        self.wanted = frozenset(wanted)
        self._file, self._signature, self._confirmed = file, signature(file), False
        self._shared = folder / "expected"
        self._expected: Expected | None = None
        self._all: list[_Process] = []
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        self._threads = ThreadPoolExecutor(size)  # a thread waits for one process at a time
        self._whole: dict[str, Future[ReplayOutcome | None]] = {}  # by the surface's digest
        self._watched: dict[str, tuple[Surface, Future[ReplayOutcome | None]]] = {}
        try:
            for _ in range(size):
                self._all.append(_Process(file))
                self._idle.put(self._all[-1])
        except OSError:
            self.close()
            raise

    def confirm(self) -> None:
        """Call this after reading the file.

        Results count only if the file is still the one that the workers opened.
        """
        self._confirmed = signature(self._file) == self._signature

    def begin(self, surface: Surface) -> None:
        """Begin a full replay."""
        if surface.digest not in self._whole:
            self._whole[surface.digest] = self._submit(surface, None)

    def begin_all(self, paths: Iterable[PathSpec]) -> None:
        for surface in _surfaces(paths):
            self.begin(surface)

    def begin_watched(
        self, paths: Iterable[PathSpec], expected: Expected, besides: Container[str]
    ) -> None:
        """Begin replays that stop at the first value that differs from `expected`.

        Digests in `besides` are skipped.
        """
        if self._expected is not None:
            return  # only one ledger can be watched for, the first
        try:  # written once for all paths, because it can be many megabytes
            self._shared.write_bytes(pickle.dumps(expected))
        except OSError:
            return
        self._expected = expected
        for surface in _surfaces(paths):
            if surface.digest not in besides and surface.digest not in self._watched:
                self._watched[surface.digest] = surface, self._submit(surface, self._shared)

    def tracks(self, surface: Surface, tape: Tape) -> Tracks | None:
        """Return everything the replay noted; None if it was not begun here or failed."""
        outcome = self._outcome(self._whole.get(surface.digest))
        return None if outcome is None else self._tracks(outcome, tape)

    def departs(
        self, surface: Surface, tape: Tape, expected: Expected
    ) -> tuple[bool, Tracks | None]:
        """Return whether the replay was seen to depart and, if not, everything it noted (as `tracks` does)."""
        if expected is not self._expected or surface.digest not in self._watched:
            return False, None
        _, begun = self._watched[surface.digest]
        while not begun.done():
            self._look_ahead()
        outcome = self._outcome(begun)
        if outcome is None or outcome.departed:
            return outcome is not None, None
        return False, self._tracks(outcome, tape)

    def close(self) -> None:
        for process in self._all:
            process.end()
        self._threads.shutdown(cancel_futures=True)

    def _look_ahead(self) -> None:
        """Wait for any watched replay.

        Begin a full replay of the first that departs, because its ledger will be needed.
        """
        wait([one for _, one in self._watched.values() if not one.done()], None, FIRST_COMPLETED)
        for surface, begun in self._watched.values():
            if begun.done() and (outcome := self._outcome(begun)) and outcome.departed:
                self.begin(surface)
                return

    def _submit(self, surface: Surface, expected: Path | None) -> Future[ReplayOutcome | None]:
        return self._threads.submit(self._ask, Job(surface, self.wanted, expected))

    def _ask(self, job: Job) -> ReplayOutcome | None:
        """Run a job on a free process. Called on a pool thread."""
        process = self._idle.get()
        try:
            return process.ask(job)
        finally:
            self._idle.put(process)

    def _outcome(self, begun: Future[ReplayOutcome | None] | None) -> ReplayOutcome | None:
        if begun is None or not self._confirmed or begun.exception() is not None:
            return None
        return begun.result()

    def _tracks(self, outcome: ReplayOutcome, tape: Tape) -> Tracks:
        return Tracks(tape, self.wanted, outcome.values, outcome.reasons)


@contextmanager
def worker_pool_of(
    file: Path, wanted: Sequence[Quantity], first: Iterable[PathSpec], jobs: int
) -> Iterator[WorkerPool | None]:
    """Provide a pool that has begun with these paths, or None if there is little to gain.

    It is closed with the block.

    `jobs` is the maximum number of replays.
    """
    with ExitStack() as stack:
        yield _begun(stack, file, wanted, list(_surfaces(first)), jobs)


def _begun(
    stack: ExitStack,
    file: Path,
    wanted: Sequence[Quantity],
    first: Sequence[Surface],
    jobs: int,
) -> WorkerPool | None:
    size = min(cores(), _MOST, jobs)
    if not _is_large(file) or cores() == 1 or not (first or jobs > 1):
        return None
    try:
        folder = stack.enter_context(TemporaryDirectory(prefix="specdiff-"))
        pool = WorkerPool(file, wanted, size, Path(folder))
    except OSError:  # no room for a folder or a process
        return None
    stack.callback(pool.close)
    for surface in first:
        pool.begin(surface)
    return pool


def _is_large(file: Path) -> bool:
    try:
        return file.is_file() and file.stat().st_size >= _WORTH_IT
    except OSError:  # the code that reads the file reports this
        return False


def cores() -> int:
    """Return the number of cores that this process may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return allowed or os.cpu_count() or 1


def _surfaces(paths: Iterable[PathSpec]) -> Iterator[Surface]:
    """Yield the surfaces that are in the cache.

    Paths that must still be fetched or lifted, or cannot be, come later.
    """
    for path in paths:
        if isinstance(path, Lifted) and (surface := kept(path)) is not None:
            yield surface
