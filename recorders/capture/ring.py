"""A journal that keeps the last minutes only: a folder of segments, of which the oldest go (standard library only).

Every segment but the first begins with a head: who records, the requests under way, and a gap that stands for all that came
before; the one before it ends with its number. So whatever is left of the segments is a journal, whenever the process dies:
`journal.scan` puts those together that follow each other.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from .. import journal
from ..schema import Kind
from ..wire import pack_event

_SEGMENTS = 8  # that the time is cut into: at most one of them too many is kept
_AGAIN_NS = 1_000_000_000
_STAMP = struct.Struct("<QI")
_FIELDS = struct.Struct("<2q")  # the first two fields of an event, behind its stamp

Records = list[tuple[Kind | journal.Type, bytes]]


class Ring:
    """Only the holder of the writer's lock is here, but for `keep`. `seconds` are kept at least.

    `is_there(number)`: whether the server has that request still. Many end without a word: on the prefill side, or turned down.
    """

    def __init__(self, folder: Path, seconds: float, is_there: Callable[[int], bool]) -> None:
        self.folder, self._is_there = folder, is_there
        self._all_ns = int(seconds * 1e9)
        self._each_ns = self._all_ns // _SEGMENTS
        self.number = 0  # of the segment that is being written
        self._whole: deque[tuple[int, int]] = deque()  # segments, and when they ended
        self._due = 0
        self._run: bytes | None = None
        self._requests: dict[int, bytes] = {}
        self._left_out: dict[
            int, bytes
        ] = {}  # the last who was: of batches with such, the sums are of others, too
        self._ended: dict[int, int] = {}  # qid -> since when nothing more is to come
        self._last = (time.monotonic_ns(), 0)  # stamp of the last event
        folder.mkdir()

    def is_due(self) -> bool:
        return time.monotonic_ns() >= self._due

    def postpone(self) -> None:
        """There is no room for another segment: each attempt leaves a few bytes in this one."""
        self._due = time.monotonic_ns() + _AGAIN_NS

    def next_path(self) -> Path:
        return self.folder / f"{self.number + 1:08}.segment"

    def turned_over(self) -> None:
        """The next segment is being written; what is older than the ring goes, however many segments that leaves."""
        now = time.monotonic_ns()
        if self.number:
            self._whole.append((self.number, now))
        self.number += 1
        self._due = now + self._each_ns
        while self._whole and now - self._whole[0][1] > self._all_ns:
            oldest, _ = self._whole.popleft()
            with contextlib.suppress(OSError):  # one that cannot go only takes room
                (self.folder / f"{oldest:08}.segment").unlink(missing_ok=True)
        self._forget(now)

    def _forget(self, now: int) -> None:
        """Who ended a while ago: a late result may name them yet."""
        for qid in self._requests.keys() - self._ended.keys():
            if not self._is_there(qid):
                self._ended[qid] = now
        for qid in [qid for qid, since in self._ended.items() if now - since >= self._each_ns]:
            del self._ended[qid], self._requests[qid]

    def head(self) -> Records:
        head: Records = [] if self._run is None else [(journal.Type.RUN, self._run)]
        named = self._left_out | self._requests
        head += [(journal.Type.REQUEST, named[qid]) for qid in sorted(named)]
        return [*head, (Kind.GAP, pack_event(Kind.GAP, *self._last, (1,)))]

    def note(self, type: Kind | journal.Type, payload: bytes) -> None:
        """A record that is about to be written."""
        if type == journal.Type.RUN:
            self._run = payload
        elif type == journal.Type.REQUEST:
            said = json.loads(payload)
            self._requests[said["qid"]] = payload
            if said.get("left_out"):
                self._left_out = {said["qid"]: payload}
        elif type not in (journal.Type.STATS, journal.Type.NEXT):
            self._last = _STAMP.unpack_from(payload)
            if type in (Kind.FINISH, Kind.ABORT):
                qid, from_queue = _FIELDS.unpack_from(payload, _STAMP.size)
                if qid in self._requests and (type == Kind.FINISH or from_queue):
                    self._ended[qid] = time.monotonic_ns()

    def keep(self, folder: Path, number: int) -> None:
        """All segments before this one under another name, where they stay; nobody sees that folder before it is whole.

        Raises OSError where that cannot be made; then nothing is left of it.
        """
        partial = folder.with_name(folder.name + journal.PARTIAL)
        try:
            partial.mkdir()
            for path in sorted(self.folder.glob("*.segment")):
                if path.name < f"{number:08}":
                    with contextlib.suppress(FileNotFoundError):  # the oldest may go meanwhile
                        _link(path, partial / path.name)
            partial.rename(folder)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _link(path: Path, other: Path) -> None:
    """It takes no time and no room, but on a file system without links."""
    try:
        os.link(path, other)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(path, other)
