"""Write a journal's file, or the segments of a ring: take items from the queue, frame them, write them.

The writer's lock makes sure that only one thread at a time runs this code. On the scheduler's
thread, a signal handler may still raise an exception between any two steps. Then no item is lost or
written twice, and the records in the file stay intact.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .. import journal
from ..schema import Kind
from ..wire import pack_gap
from .descriptor import Identity, identity, is_still
from .ring import Ring

_CHUNK = 1 << 20  # bytes framed before they are written

Call = tuple[Any, ...]  # a function and its arguments; called when its bytes are to be written
Payload = bytes | Call
Stamp = tuple[int, int]  # (time_ns, iteration)


# The type, the payload, the size in bytes that it counts for in memory, and the stamp of the GAP to
# write if it cannot be packed. It is a plain tuple, because the scheduler creates one per record and
# Python's garbage collector scans everything that waits.
Item = tuple[Kind | journal.Type, Payload, int, Stamp | None]


class _Framed(NamedTuple):
    item: Item
    data: bytes  # empty if it could not be packed and has no stamp for a GAP
    checksum: int  # of the last record so far


class _End(NamedTuple):
    """Where the file ends, and what comes next.

    It is always replaced as a whole, so that an exception cannot leave it half changed.
    """

    fd: int  # -1: no longer ours
    identity: Identity
    good: int  # the file is intact up to this offset
    checksum: int  # of the last record
    framed: list[_Framed]  # taken from the queue, but not in the file yet


class JournalFile:
    """A journal's file. It has a POSIX record lock as long as this process writes to it."""

    def __init__(
        self,
        path: Path,
        first: bytes,
        ring: Ring | None,
        refused: Callable[[OSError], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Create the file and write `first`, a framed record.

        `refused` is called if a write fails, `failed` if a record cannot be packed.

        Raises OSError if `path` cannot be created or `first` cannot be written.
        """
        self._first, self._ring = first, ring
        self._refused, self._failed = refused, failed
        self.taken = 0  # total size of the items taken from the queue
        # The number of places after which books must begin anew: each begun segment (it will one
        # day be the oldest), and each GAP written for a record that could not be packed.
        self.breaks = 0
        self._why_lost = "the server closed its file descriptor"
        self._end = self._begun(path) if ring is None else self._first_of(ring)

    def _begun(self, path: Path, head: Sequence[tuple[Kind | journal.Type, bytes]] = ()) -> _End:
        framed, checksum = [self._first], journal.checksum_of(self._first)
        for type, payload in head:
            framed.append(journal.frame(type, payload, checksum))
            checksum = journal.checksum_of(framed[-1])
        data = journal.HEADER + b"".join(framed)
        fd = _create(path, data)
        return _End(fd, identity(fd), len(data), checksum, [])

    def _first_of(self, ring: Ring) -> _End:
        try:
            end = self._begun(ring.next_path())
        except OSError:
            with contextlib.suppress(OSError):
                ring.folder.rmdir()
            raise
        ring.turned_over()
        return end

    @property
    def fd(self) -> int:
        """The file descriptor, or -1 if it is no longer ours."""
        return self._end.fd

    @property
    def framed(self) -> bool:
        """Whether items were taken from the queue that are not in the file yet."""
        return bool(self._end.framed)

    @property
    def written(self) -> int:
        """How much of `taken` is in the file. Can be read on any thread."""
        return self.taken - sum(one.item[2] for one in list(self._end.framed))

    def take(self, queue: deque[Item]) -> None:
        """Take and frame as many items as one write may hold.

        An item is removed from the queue last. After an exception it can be both in the queue and
        framed; the next call notices that, so that it is still written only once.
        """
        framed = self._end.framed
        size = sum(len(one.data) for one in framed)
        while queue:
            item = queue[0]
            if not framed or framed[-1].item is not item:
                if size >= _CHUNK:
                    return
                framed.append(self._record(item, (framed[-1] if framed else self._end).checksum))
                size += len(framed[-1].data)
            self.taken += item[2]
            queue.popleft()

    def _record(self, item: Item, before: int) -> _Framed:
        """Frame an item, or a GAP if that fails, or nothing: it must not stop the items behind it."""
        type, payload, _, stamp = item
        try:
            packed = payload if isinstance(payload, bytes) else payload[0](*payload[1:])
            return self._framed(item, type, packed, before)
        except Exception as error:  # noqa: BLE001 (lose only this record)
            self._report(error)
        if stamp is not None:
            try:
                framed = self._framed(item, Kind.GAP, pack_gap(*stamp, 1), before)
                self.breaks += 1
                return framed
            except Exception as error:  # noqa: BLE001 (as above)
                self._report(error)
        return _Framed(item, b"", before)

    def _framed(self, item: Item, type: Kind | journal.Type, packed: bytes, before: int) -> _Framed:
        data = journal.frame(type, packed, before)
        if self._ring is not None:
            self._ring.note(type, packed)
        return _Framed(item, data, journal.checksum_of(data))

    def _report(self, error: Exception) -> None:
        with contextlib.suppress(Exception):  # the exception may be impossible to print
            self._failed(error)

    def write(self) -> bool:
        """Write what is framed. Return False if nothing was framed, or if the write failed.

        After a short write, complete records stay in the file. Each write goes to an explicit
        offset, so that the next attempt overwrites a torn record.
        """
        _, _, good, checksum, framed = self._end
        if not framed:
            return False
        done, error = self._written(b"".join(one.data for one in framed), good)
        kept = 0
        while kept < len(framed) and len(framed[kept].data) <= done:
            done -= len(framed[kept].data)
            good += len(framed[kept].data)
            checksum = framed[kept].checksum
            kept += 1
        self._end = self._end._replace(good=good, checksum=checksum, framed=framed[kept:])
        if error is None:
            return True
        with contextlib.suppress(OSError):
            os.ftruncate(self._end.fd, good)
        self._refused(error)
        return False

    def _written(self, data: bytes, at: int) -> tuple[int, OSError | None]:
        """Write `data` at offset `at`. Return the number of bytes written, and the error if any."""
        done, view = 0, memoryview(data)
        try:
            if lost := self._lost():
                raise OSError(lost)
            while done < len(data):
                done += os.pwrite(self._end.fd, view[done:], at + done)
        except OSError as error:
            return done, error
        return done, None

    def _lost(self) -> str:
        """Return why the file would not be found later, or an empty string.

        A file that was moved can still be found, so writing goes on.
        """
        if self._is_ours():
            if os.fstat(self._end.fd).st_nlink:
                return ""
            self._why_lost = "it was deleted"
            os.close(self._end.fd)  # otherwise the deleted file would still use disk space
        self._end = self._end._replace(fd=-1)
        return self._why_lost

    def turn_over(self) -> bool:
        """Begin the ring's next segment.

        Return False if records are waiting to be written, or if the disk has no room for a new
        segment. Writing then goes on in the current one.
        """
        ring = self._ring
        if ring is None or self._end.framed:
            return False
        path = ring.next_path()
        # If the next segment is already the current file, an earlier call began it and was
        # interrupted by an exception. Then only the rest is to be done.
        if _named(path) != self._end.identity:
            whole, is_ours = self._end, self._is_ours()
            if is_ours and not self._ends_with(ring.number + 1):
                return False
            try:
                path.unlink(missing_ok=True)  # an interrupted call may have left one
                self._end = self._begun(path, ring.head())
            except OSError as error:
                ring.postpone()
                self._refused(error)
                return False
            if is_ours:
                os.close(whole.fd)
        self.breaks += 1  # first, because after an exception counting twice is better than never
        ring.turned_over()
        return True

    def _ends_with(self, number: int) -> bool:
        """Write the NEXT record that ends the segment. Return whether that worked."""
        item: Item = (journal.Type.NEXT, journal.next_number(number), 0, None)
        self._end = self._end._replace(framed=[self._record(item, self._end.checksum)])
        return self.write()

    def discard_framed(self) -> None:
        """Discard what is framed."""
        self._end = self._end._replace(framed=[])

    def close(self) -> None:
        """Close the descriptor, which also releases the lock."""
        if self._is_ours():
            os.close(self._end.fd)
        self._end = self._end._replace(fd=-1)

    def _is_ours(self) -> bool:
        """Whether the descriptor is still our file.

        A server that closes all descriptors may have opened its own file under this number.
        """
        return is_still(self._end.fd, self._end.identity)


def _create(path: Path, data: bytes) -> int:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX)
        if os.write(fd, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except BaseException:  # including one raised by a signal handler
        os.close(fd)
        with contextlib.suppress(OSError):  # the file contains nothing to recover
            path.unlink()
        raise
    return fd


def _named(path: Path) -> Identity | None:
    """Return the identity of the file at `path`, or None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
