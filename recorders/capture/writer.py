"""The journal's writer: a bounded queue that the scheduler fills and a thread that empties it every 50 ms."""

from __future__ import annotations

import fcntl
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from .. import journal
from ..run import Stats, to_json
from ..schema import Kind
from ..wire import pack_event

_EVERY_S = 0.05
_STATS_EVERY_S = 1.0
_RECORD_BYTES = 200  # what a queued record takes besides its payload
_CHUNK = 4 << 20  # bytes framed before they are written
_PATIENCE_S = 5.0  # how long `close` waits for a disk that does not take the rest

Payload = bytes | Callable[[], bytes]  # a callable is packed on the writer's thread
_Queued = tuple[Kind | journal.Type, Payload, int, tuple[int, int] | None]


class JournalWriter:
    """Owns one journal file, locked (POSIX record lock) for as long as this process writes to it."""

    def __init__(
        self,
        path: Path,
        first: bytes,
        max_bytes: int,
        stats: Callable[[bool], Stats],
        failed: Callable[[Exception], None],
    ) -> None:
        """`first` is in the file when this returns; `stats(closed)` and `failed(error)` are called on the thread.

        Raises OSError where `path` cannot be created.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o644)
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        self._good = 0  # the file is sound up to here
        self._unwritten = b""
        self.error: str | None = None
        self._write(journal.HEADER + first)
        self._queue: deque[_Queued] = deque()
        self._max_bytes = max_bytes
        self._bytes_in = 0  # only the scheduler's thread writes this one
        self._bytes_out = 0  # and only the writer's thread this one
        self._stats, self._failed = stats, failed
        self._last_stats: Stats | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="specdiff-journal", daemon=True)
        self._thread.start()

    def has_room(self, size: int) -> bool:
        return self._bytes_in - self._bytes_out + size <= self._max_bytes

    def put(
        self,
        type: Kind | journal.Type,
        payload: Payload,
        size: int,
        stamp: tuple[int, int] | None = None,
    ) -> None:
        """Queue one record; the caller has asked `has_room`, or must not lose this one.

        `stamp` (time_ns, iteration) is that of the GAP that is written instead where this one cannot be packed.
        """
        size += _RECORD_BYTES
        self._bytes_in += size
        self._queue.append((type, payload, size, stamp))

    def close(self) -> None:
        """Write what is queued and the last statistics; returns when that is done or the disk refuses."""
        self._stop.set()
        self._thread.join(_PATIENCE_S)

    def abandon(self) -> None:
        """In a fork: drop everything; the thread is not there and the journal is the parent's."""
        self._queue.clear()
        self._stop.set()

    def _run(self) -> None:
        owner, ticks = os.getpid(), 0
        while not self._stop.wait(_EVERY_S):
            ticks += 1
            self._drain()
            if ticks * _EVERY_S >= _STATS_EVERY_S:
                ticks = 0
                self._put_stats(closed=False)
        if os.getpid() == owner:
            self._drain()
            self._put_stats(closed=True)
            self._drain()

    def _put_stats(self, closed: bool) -> None:
        stats = self._stats(closed)
        if stats != self._last_stats:
            self._last_stats = stats
            self._queue.append((journal.Type.STATS, to_json(stats).encode(), 0, None))

    def _drain(self) -> None:
        while self._write(self._unwritten or self._next_chunk()):
            pass

    def _next_chunk(self) -> bytes:
        frames: list[bytes] = []
        size = 0
        while self._queue and size < _CHUNK:
            type, payload, counted, stamp = self._queue.popleft()
            self._bytes_out += counted
            try:
                data = payload if isinstance(payload, bytes) else payload()
                framed = journal.frame(type, data)
            except Exception as error:  # noqa: BLE001 (one record is lost, the thread must go on)
                self._failed(error)
                gap = b"" if stamp is None else pack_event(Kind.GAP, *stamp, (1,))
                framed = journal.frame(Kind.GAP, gap) if gap else b""
            frames.append(framed)
            size += len(framed)
        return b"".join(frames)

    def _write(self, data: bytes) -> bool:
        """True when `data` is in the file and there may be more; a short write is taken back and tried again."""
        if not data:
            return False
        try:
            at = 0
            while at < len(data):
                at += os.write(self._fd, data[at:])
        except OSError as error:
            self.error = str(error)
            self._unwritten = data
            os.ftruncate(self._fd, self._good)
            os.lseek(self._fd, self._good, os.SEEK_SET)
            return False
        self._good += len(data)
        self._unwritten = b""
        return True
