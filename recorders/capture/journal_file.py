"""The file of a journal, or its ring of them: what was taken from the queue is framed, and what was framed is written.

One thread at a time is in here: the writer sees to that. An exception may come between any two steps all the same (a
signal's, on the scheduler's thread): nothing is then lost or in the file twice, and what is in the file stays whole.
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
from ..wire import pack_event
from .descriptor import Identity, identity, is_still
from .ring import Ring

_CHUNK = 1 << 20  # bytes framed before they are written

Call = tuple[Any, ...]  # a function, and what to call it with, when its bytes are written
Payload = bytes | Call
Stamp = tuple[int, int]  # (time_ns, iteration)


# What is counted for it, in bytes, comes third; then the stamp of the GAP that is written where it cannot be packed. Plain
# tuples: the scheduler makes them for each record, and Python's garbage collector looks at whatever waits.
Item = tuple[Kind | journal.Type, Payload, int, Stamp | None]


class _Framed(NamedTuple):
    item: Item
    data: bytes  # none where it could not be packed and leaves no gap
    checksum: int  # of the last record so far


class _End(NamedTuple):
    """Where the file ends, and what comes next: always replaced as one, so that no exception leaves half of it."""

    fd: int  # -1: it is not ours any more
    identity: Identity
    good: int  # the file is sound up to here
    checksum: int  # of the last record
    framed: list[_Framed]  # taken from the queue, not in the file yet


class JournalFile:
    """Locked (POSIX record lock) for as long as this process writes to it."""

    def __init__(
        self,
        path: Path,
        first: bytes,
        ring: Ring | None,
        refused: Callable[[OSError], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """`first`, a framed record, is in the file when this returns. `refused`: the disk did not take something;
        `failed`: a record could not be packed.

        Raises OSError where `path` cannot be created, or does not take `first`.
        """
        self._first, self._ring = first, ring
        self._refused, self._failed = refused, failed
        self.taken = 0  # of the queue, by the items' sizes
        # Segments begun, each of which is the oldest one day, and gaps written for records that could not be packed.
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
        """-1 where it is not ours any more."""
        return self._end.fd

    @property
    def framed(self) -> bool:
        """Whether something was taken from the queue and is not in the file yet."""
        return bool(self._end.framed)

    @property
    def written(self) -> int:
        """Of `taken`, what is in the file. On any thread."""
        return self.taken - sum(one.item[2] for one in list(self._end.framed))

    def take(self, queue: deque[Item]) -> None:
        """What one write may hold. An item leaves the queue last: an exception between any two steps leaves it in both
        places, and it is written once all the same."""
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
        type, payload, _, stamp = item
        try:
            packed = payload if isinstance(payload, bytes) else payload[0](*payload[1:])
        except Exception as error:  # noqa: BLE001 (one record is lost, the others must go on)
            with contextlib.suppress(Exception):
                self._failed(error)
            if stamp is None:
                return _Framed(item, b"", before)
            type, packed = Kind.GAP, pack_event(Kind.GAP, *stamp, (1,))
            self.breaks += 1
        if self._ring is not None:
            self._ring.note(type, packed)
        data = journal.frame(type, packed, before)
        return _Framed(item, data, journal.checksum_of(data))

    def write(self) -> bool:
        """True when what was framed is in the file; False where nothing was, or the disk refuses.

        Of a short write the whole records stay. At a place of its own, so that the next try overwrites what is torn.
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
        """How much of it the disk took, and why not more."""
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
        """Why nothing written would ever be found, if so. A file that was moved is written on."""
        if self._is_ours():
            if os.fstat(self._end.fd).st_nlink:
                return ""
            self._why_lost = "it was deleted"
            os.close(self._end.fd)  # or it takes up the disk, unseen
        self._end = self._end._replace(fd=-1)
        return self._why_lost

    def turn_over(self) -> bool:
        """Go on in the ring's next segment, between two records; where a disk has no room for one, in this one: False."""
        ring = self._ring
        if ring is None or self._end.framed:
            return False
        path = ring.next_path()
        if _named(path) != self._end.identity:  # else a signal's exception has come right behind
            whole, is_ours = self._end, self._is_ours()
            if is_ours and not self._ends_with(ring.number + 1):
                return False
            try:
                path.unlink(missing_ok=True)  # what such an exception left, or right before
                self._end = self._begun(path, ring.head())
            except OSError as error:
                ring.postpone()
                self._refused(error)
                return False
            if is_ours:
                os.close(whole.fd)
        self.breaks += 1  # first: rather twice than never, where an exception comes between
        ring.turned_over()
        return True

    def _ends_with(self, number: int) -> bool:
        """Whether the segment says which one goes on."""
        item: Item = (journal.Type.NEXT, journal.next_number(number), 0, None)
        self._end = self._end._replace(framed=[self._record(item, self._end.checksum)])
        return self.write()

    def forget(self) -> None:
        """What is framed, for good: nobody wants it any more."""
        self._end = self._end._replace(framed=[])

    def let_go(self) -> None:
        """Of the descriptor, and with it of the lock."""
        if self._is_ours():
            os.close(self._end.fd)
        self._end = self._end._replace(fd=-1)

    def _is_ours(self) -> bool:
        """A server that closes every descriptor it finds may have opened a file of its own under this number."""
        return is_still(self._end.fd, self._end.identity)


def _create(path: Path, data: bytes) -> int:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX)
        if os.write(fd, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except BaseException:  # a signal's, too
        os.close(fd)
        with contextlib.suppress(OSError):  # nothing is in it that could be recovered
            path.unlink()
        raise
    return fd


def _named(path: Path) -> Identity | None:
    """The identity of the file of that name; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
