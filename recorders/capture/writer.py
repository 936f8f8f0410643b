"""The writer of a journal: a bounded queue that the scheduler fills and a thread that empties it.

The thread does so every 20 ms.

Whatever the disk does, nothing is raised into the server. If writing fails, the writer tries again
as long as the queue has room; then the recorder stops for good. The failure is logged once, and the
records in the file stay intact.
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
# To keep the promised 50 ms, a step that finds events waiting for longer than this lets the thread
# run, and if that does not help, writes the events itself.
_LATE_S = 0.025
_TURN_S = 0.0001  # how long a step sleeps to let the thread run
_TURNS = 3  # how often it does so before it writes
_TURN_EVERY_S = 0.005  # if the thread waits for the disk, how much later a step tries again
_RETRY_S = 1.0  # between attempts after a failed write
_STATS_EVERY_S = 1.0
_RECORD_BYTES = 200  # memory of a queued record besides its payload
_OVERCOMMIT_BYTES = (
    16 << 20
)  # bytes by which records that must not be dropped may exceed the memory limit
_TIMEOUT_S = 5.0  # how long `close` waits for a disk that is slow or fails


class JournalWriter:
    """Owns one journal. What is queued is soon in its file, where it survives the process."""

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
        """Create the journal, write `first` (a framed record) and start the thread.

        `stats(closed)` and `failed(error)` are called on the thread. With `ring_s`, `path` becomes a
        folder of segments that hold at least that many seconds; for `is_there` see `ring`.

        Raises OSError if `path` cannot be created or `first` cannot be written.
        """
        self._path = path
        self._ring = None if ring_s is None else Ring(path, ring_s, is_there)
        self._file = JournalFile(path, first, self._ring, self._refused, failed)
        self._queue: deque[Item] = deque()
        self._max_bytes = max_bytes
        self._bytes_in = 0  # total bytes queued; only the scheduler's thread changes this
        self._stats, self._failed = stats, failed
        self._last_stats: Stats | None = None
        self._every_step = every_step
        self._full = self._logged_failure = False
        self.error: str | None = None  # why the last write failed; None if it succeeded
        self.stopped = False  # for good: nothing is queued any more
        self._gave_up = False  # stopped before the end, because the disk hung
        self._gone = False  # also, nothing is written any more
        self._since = 0.0  # no item outside the file is older than this time
        self._new_locks()
        self._thread = threading.Thread(target=self._run, name="specdiff-journal", daemon=True)
        _abandon_in_forks(self)
        try:
            self._thread.start()
        except RuntimeError:  # no thread available: nothing would write, or release the lock
            self._file.close()
            raise

    def _new_locks(self) -> None:
        self._lock = threading.Lock()  # protects `_file`
        self._stop = threading.Event()
        # after `_stop`: the rest was written, or writing was tried
        self._tried_rest = threading.Event()

    # -- on the scheduler's thread

    def has_room(self, size: int) -> bool:
        if self._bytes_in - self._file.taken + size <= self._max_bytes and not self.stopped:
            return True
        self._full = True
        return False

    def offer(self, type: Kind, payload: Payload, size: int, stamp: Stamp) -> bool:
        """Queue one record if there is room, and return whether there was.

        The code of `put` is inlined here, because every event takes this way.
        """
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
        """Queue one record. The caller has checked `has_room`, or must not lose this record.

        Only what already waits counts against the limit here: a large record alone says nothing
        about the disk.

        `stamp` is that of the GAP that is written instead if the record cannot be packed.
        """
        if self._bytes_in - self._file.taken > self._max_bytes + _OVERCOMMIT_BYTES:
            self._give_up()
        if self.stopped:
            return
        size += _RECORD_BYTES
        self._bytes_in += size
        if self._is_empty():
            self._since = time.monotonic()
        self._queue.append((type, payload, size, stamp))

    def _give_up(self) -> None:
        """Stop recording: the disk hangs, and there are too many records that must not be dropped.

        What is queued is still written if the disk recovers.
        """
        if not self.stopped:
            self.stopped = self._gave_up = True
            self._stop.set()
            logger.warning(
                "specdiff: %s: recording has stopped, because the disk hangs and %d MB wait to be written. The server goes "
                "on, and the waiting events are written if the disk recovers.",
                self._path,
                self.waiting_bytes >> 20,
            )

    def commit(self) -> None:
        """End a step.

        With `--durability step`, write everything that is queued, so that the server waits for the
        disk. If a write fails, further attempts are left to the thread.

        Otherwise write only if the thread is late: on a busy machine, or because of other threads,
        it may not get to run. If the thread itself waits for the disk, do not wait, too.
        """
        if self.error or self.stopped or not (self._queue or self._file.framed):
            return
        if self._every_step:
            self._guarded(self._drain)
        elif time.monotonic() - self._since > _LATE_S:
            self._guarded(self._drain_late)

    def _drain_late(self) -> None:
        """Let the thread run, and write only if it does not: a step that writes may hang with the disk.

        If the thread holds the lock, it is waiting for the disk; then try again a little later.
        """
        for _ in range(_TURNS):
            time.sleep(_TURN_S)
            if self._is_empty():
                return
        if self._lock.locked():
            self._since += _TURN_EVERY_S
        else:
            self._drain()

    def _is_empty(self) -> bool:
        """Whether everything is in the file. Framed items have left the queue, but are not in the file."""
        return not self._queue and not self._file.framed

    @property
    def breaks(self) -> int:
        """The number of places after which books must begin anew: see `JournalFile.breaks`."""
        return self._file.breaks

    def flush(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds until everything queued so far is in the file.

        Return whether it is. Do not call this on the scheduler's thread.
        """
        target, end = self._bytes_in, time.monotonic() + timeout_s
        while self._file.written < target and time.monotonic() < end:
            time.sleep(_TURN_S)
        return self._file.written >= target

    def keep(self, folder: Path, timeout_s: float) -> bool:
        """Keep the current contents of a ring as a separate journal, `folder`.

        Return False if the disk is too slow or a write failed. Raises OSError if `folder` cannot be
        made.
        """
        if self._ring is None or not self.flush(timeout_s):
            return False
        with self._lock:
            whole = not self._gone and self._file.turn_over()
            number = self._ring.number
        if whole:
            self._ring.keep(folder, number)  # outside of the lock, because it may take time
        return whole

    @property
    def waiting_bytes(self) -> int:
        """The number of bytes in memory that are not in the file yet."""
        return self._bytes_in - self._file.written

    def close(self) -> None:
        """Write what is queued and the last statistics.

        Return when that is done, when a write fails, or after a timeout. If some of it is not
        written, the thread tries again as long as the process lives, and sets `stopped` when all is
        written.
        """
        self._stop.set()
        self._tried_rest.wait(_TIMEOUT_S)
        if self._gone:
            self._thread.join(_TIMEOUT_S)

    def abandon(self) -> None:
        """In a fork: drop everything. The fork has no writer thread, and the journal is its parent's."""
        self.stopped = self._gone = True
        self._new_locks()  # the thread may have held the old ones, and it is not here
        self._stop.set()
        self._tried_rest.set()
        self._queue.clear()
        self._file.close()  # record locks are not inherited: the parent keeps its own

    # -- on the writer's thread

    def _run(self) -> None:
        passed = 0.0
        while not self._stop.wait(wait := _RETRY_S if self.error else _EVERY_S):
            passed += wait
            refused = self.error is not None
            self._guarded(self._drain)
            if refused and self.error and self._full:
                self._shut_down()  # releases the lock, so that the journal can be recovered
            if passed >= _STATS_EVERY_S:
                passed = 0.0
                self._guarded(partial(self._put_stats, closed=False))
        self._guarded(self._drain)
        self._guarded(partial(self._put_stats, closed=not self._gave_up))
        self._guarded(self._drain)
        while self._file.fd >= 0 and not self._is_empty():
            self._tried_rest.set()
            time.sleep(_RETRY_S)  # the lock stays held, which shows that there is more to write
            self._guarded(self._drain)
        self._shut_down()
        self._tried_rest.set()

    def _guarded(self, act: Callable[[], object]) -> None:
        """Call `act` and report any exception, so that neither the thread nor the server is affected."""
        try:
            act()
        except Exception as error:  # noqa: BLE001 (see above)
            with contextlib.suppress(Exception):  # the exception may be impossible to print
                self._failed(error)

    def _put_stats(self, closed: bool) -> None:
        stats = self._stats(closed)
        if stats != self._last_stats:
            self._last_stats = stats
            self._queue.append((journal.Type.STATS, to_json(stats).encode(), 0, None))

    # -- on either thread, under the lock

    def _drain(self) -> None:
        with self._lock:  # no exception of a signal handler can leave a `with` block's lock held
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
        if not self._logged_failure:
            self._logged_failure = True
            logger.warning(
                "specdiff: %s cannot be written: %s. The server goes on, and what is already written stays intact. The "
                "recorder keeps up to %d MB in memory and tries again; when that is full, it stops for good.",
                self._path,
                self.error,
                self._max_bytes >> 20,
            )

    def _shut_down(self) -> None:
        """Stop writing, drop the queue, and release the journal and its lock."""
        with self._lock:
            self.stopped = self._gone = True
            self._stop.set()
            self._queue.clear()
            self._file.discard_framed()
            self._file.close()


def _abandon_in_forks(writer: JournalWriter) -> None:
    """Abandon the writer in every fork of this process: a fork that wrote would damage the journal."""
    known = weakref.ref(writer)

    def forked() -> None:
        if (one := known()) is not None:
            one.abandon()

    os.register_at_fork(after_in_child=forked)
