"""The journal's writer: a bounded queue that the scheduler fills and a thread that empties it every 20 ms.

Whatever the disk does, nothing is raised into the server. A disk that refuses is asked again for as long as the queue has
room; then the recorder stops for good. The log says so once, and what is in the file stays whole.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .. import journal
from ..run import Stats, to_json
from ..schema import Kind
from .journal_file import Item, JournalFile, Payload, Stamp
from .ring import Ring

logger = logging.getLogger("specdiff")

_EVERY_S = 0.02
_LATE_S = 0.025  # 50 ms is what is promised: from here on a step writes itself what the thread had no turn to write
_TURN_S = 0.0001  # what the thread is given, some times over, to do it
_TURNS = 3
_TURN_EVERY_S = 0.005
_AGAIN_S = 1.0  # between attempts on a disk that refuses
_STATS_EVERY_S = 1.0
_RECORD_BYTES = 200  # what a queued record takes besides its payload
_BEYOND = 16 << 20  # bytes that may wait beyond the memory there is: of records not to be dropped
_PATIENCE_S = 5.0  # how long `close` waits for a disk that does not take the rest


class JournalWriter:
    """Owns one journal: what is handed over is in its file soon, whatever becomes of the process."""

    def __init__(
        self,
        path: Path,
        first: bytes,
        max_bytes: int,
        stats: Callable[[bool], Stats],
        failed: Callable[[Exception], None],
        every_step: bool = False,
        ring_s: float | None = None,
        is_there: Callable[[int], bool] = lambda number: True,
    ) -> None:
        """`first`, a framed record, is in the file when this returns; `stats(closed)` and `failed(error)` are called on the
        thread. With `ring_s`, `path` becomes a folder of segments that hold at least so many seconds; `is_there`: see `ring`.

        Raises OSError where `path` cannot be created, or does not take `first`.
        """
        self._path = path
        self._ring = None if ring_s is None else Ring(path, ring_s, is_there)
        self._file = JournalFile(path, first, self._ring, self._refused, failed)
        self._queue: deque[Item] = deque()
        self._max_bytes = max_bytes
        self._bytes_in = 0  # that were queued; only the scheduler's thread writes this one
        self._stats, self._failed = stats, failed
        self._last_stats: Stats | None = None
        self._every_step = every_step
        self._full = self._said = False
        self.error: str | None = None  # the disk refuses, for now
        self.stopped = False  # for good: nothing is queued any more
        self._gave_up = False  # and that was not at the end
        self._gone = False  # nor written
        self._since = 0.0  # when all was last in the file: what is not waits since then, at most
        self._lock = threading.Lock()  # `_file` is the holder's
        self._stop = threading.Event()
        self._asked = threading.Event()  # the disk, after that, to take the rest
        self._thread = threading.Thread(target=self._run, name="specdiff-journal", daemon=True)
        _abandon_in_forks(self)
        try:
            self._thread.start()
        except RuntimeError:  # there are none to be had: nobody would write, nor let go of the lock
            self._file.let_go()
            raise

    # -- on the scheduler's thread

    def has_room(self, size: int) -> bool:
        if self._bytes_in - self._file.taken + size <= self._max_bytes and not self.stopped:
            return True
        self._full = True
        return False

    def offer(self, type: Kind, payload: Payload, size: int, stamp: Stamp) -> bool:
        """`put`, where there is room; written out, as every event comes through here."""
        size += _RECORD_BYTES
        bytes_in, queue = self._bytes_in + size, self._queue
        if bytes_in - self._file.taken > self._max_bytes or self.stopped:
            self._full = True
            return False
        self._bytes_in = bytes_in
        if not queue and not self._file.framed:
            self._since = time.monotonic()
        queue.append((type, payload, size, stamp))
        return True

    def put(
        self,
        type: Kind | journal.Type,
        payload: Payload,
        size: int,
        stamp: Stamp | None = None,
    ) -> None:
        """Queue one record; the caller has asked `has_room`, or must not lose this one.

        `stamp` is that of the GAP that is written instead where this one cannot be packed.
        """
        size += _RECORD_BYTES
        if self._bytes_in - self._file.taken + size > self._max_bytes + _BEYOND:
            self._give_up()
        if self.stopped:
            return
        self._bytes_in += size
        if self._is_empty():
            self._since = time.monotonic()
        self._queue.append((type, payload, size, stamp))

    def _give_up(self) -> None:
        """The disk hangs, and what comes cannot be dropped: what is queued is written if it ever takes it, nothing else is."""
        if not self.stopped:
            self.stopped = self._gave_up = True
            self._stop.set()
            logger.warning(
                "specdiff: %s: the disk has hung for so long that %d MB wait for it; no more is recorded. The server goes on, "
                "and what waits is written if the disk comes back.",
                self._path,
                self.waiting_bytes >> 20,
            )

    def commit(self) -> None:
        """A step is over. At durability `step` all that was put is in the file when this returns, and the server waits
        for the disk; one that refuses is left to the thread.

        Otherwise nothing is written here but what the thread is late with: on a busy machine, or behind other
        threads, it may not get its turn. Where it waits for the disk, nobody else does.
        """
        if self.error or self.stopped or not (self._queue or self._file.framed):
            return
        if self._every_step:
            self._guarded(self._drain)
        elif time.monotonic() - self._since > _LATE_S:
            self._guarded(self._drain_late)

    def _drain_late(self) -> None:
        """Unless the thread does, given its turns: a step that writes waits for a disk that hangs. One that has begun and
        does not end waits for the disk itself."""
        for _ in range(_TURNS):
            time.sleep(_TURN_S)
            if self._is_empty():
                return
        if self._lock.locked():
            self._since += _TURN_EVERY_S
        else:
            self._drain()

    def _is_empty(self) -> bool:
        """Whether all that was put is in the file: what is framed is out of the queue, but not there yet."""
        return not self._queue and not self._file.framed

    @property
    def breaks(self) -> int:
        """How often the writer has made a place behind which books must begin anew: see `JournalFile.breaks`."""
        return self._file.breaks

    def flush(self, patience: float) -> bool:
        """Whether all that was put before is in the file; waits so many seconds for the thread, on any but the server's."""
        target, end = self._bytes_in, time.monotonic() + patience
        while self._file.written < target and time.monotonic() < end:
            time.sleep(_TURN_S)
        return self._file.written >= target

    def keep(self, folder: Path, patience: float) -> bool:
        """Of a ring: what it holds now, also as a journal `folder`, which nobody writes to. False where a disk is in the way.

        Raises OSError where `folder` cannot be made.
        """
        if self._ring is None or not self.flush(patience):
            return False
        with self._lock:
            whole = not self._gone and self._file.turn_over()
            number = self._ring.number
        if whole:
            self._ring.keep(folder, number)  # which may take time: nobody waits for it
        return whole

    @property
    def waiting_bytes(self) -> int:
        """Bytes in memory that are not in the file."""
        return self._bytes_in - self._file.written

    def close(self) -> None:
        """Write what is queued and the last statistics; returns when that is done or the disk refuses. Then it is asked again
        for as long as the process lives, and `stopped` says when it has taken all."""
        self._stop.set()
        self._asked.wait(_PATIENCE_S)
        if self._gone:
            self._thread.join(_PATIENCE_S)

    def abandon(self) -> None:
        """In a fork: drop everything; the thread is not there and the journal is the parent's."""
        if not self._gone:
            self.stopped = self._gone = True
            self._stop.set()
            self._asked.set()
            self._queue.clear()
            self._file.let_go()  # record locks are not inherited: the parent keeps its own

    # -- on the writer's thread

    def _run(self) -> None:
        passed = 0.0
        while not self._stop.wait(wait := _AGAIN_S if self.error else _EVERY_S):
            passed += wait
            refused = self.error is not None
            self._guarded(self._drain)
            if refused and self.error and self._full:
                self._let_go_for_good()  # so that the journal can be recovered
            if passed >= _STATS_EVERY_S:
                passed = 0.0
                self._guarded(partial(self._put_stats, closed=False))
        self._guarded(self._drain)
        self._guarded(partial(self._put_stats, closed=not self._gave_up))
        self._guarded(self._drain)
        while self._file.fd >= 0 and not self._is_empty():
            self._asked.set()
            time.sleep(_AGAIN_S)  # whoever looks finds a process that has not written all it has
            self._guarded(self._drain)
        self._let_go_for_good()
        self._asked.set()

    def _guarded(self, act: Callable[[], object]) -> None:
        """The thread outlives whatever goes wrong, and the server never sees it."""
        try:
            act()
        except Exception as error:  # noqa: BLE001 (see above)
            with contextlib.suppress(Exception):  # even an exception that cannot be printed
                self._failed(error)

    def _put_stats(self, closed: bool) -> None:
        stats = self._stats(closed)
        if stats != self._last_stats:
            self._last_stats = stats
            self._queue.append((journal.Type.STATS, to_json(stats).encode(), 0, None))

    # -- on either, under the lock

    def _drain(self) -> None:
        with self._lock:  # no signal's exception can come between taking it and giving it back
            more = not self._gone
            while more:
                if self._ring is not None and self._ring.is_due():
                    self._file.turn_over()
                self._file.take(self._queue)
                if more := self._file.write():
                    self.error = None

    def _refused(self, error: OSError) -> None:
        if self.error is None:
            self._full = False
        self.error = error.strerror or str(error)
        if not self._said:
            self._said = True
            logger.warning(
                "specdiff: %s cannot be written: %s. The server goes on, and what is written stays whole. The "
                "recorder keeps up to %d MB for the disk to take, then it stops for good.",
                self._path,
                self.error,
                self._max_bytes >> 20,
            )

    def _let_go_for_good(self) -> None:
        """Of the queue, too: the disk does not take it, or nobody wants it any more."""
        with self._lock:
            self.stopped = self._gone = True
            self._stop.set()
            self._queue.clear()
            self._file.forget()
            self._file.let_go()


def _abandon_in_forks(writer: JournalWriter) -> None:
    """Whoever else knows of it or not: a fork that wrote would damage its parent's journal."""
    known = weakref.ref(writer)

    def forked() -> None:
        if (one := known()) is not None:
            one.abandon()

    os.register_at_fork(after_in_child=forked)
