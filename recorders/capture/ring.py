"""A ring: a journal that keeps only the last minutes (standard library only).

It is a folder of segments, of which the oldest are deleted. Every segment except the first begins
with a head: the run attributes, the requests under way, and a GAP for all earlier events. The
segment before it ends with its number. So the segments that remain are a valid journal, whenever the
process dies: `journal.scan` joins the segments that follow each other.
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

_SEGMENTS = 8  # number of segments that the time is divided into; up to one more is kept
_AGAIN_NS = 1_000_000_000
_STAMP = struct.Struct("<QI")
_FIELDS = struct.Struct("<2q")  # the first two fields of an event, after its stamp

Records = list[tuple[Kind | journal.Type, bytes]]


class Ring:
    """The segments of a ring. Except for `keep`, its methods need the writer's lock.

    At least the last `seconds` are kept. `is_there(number)` tells whether the server still has a
    request: many requests end without an event, e.g. on the prefill side, or if they are rejected.
    """

    def __init__(self, folder: Path, seconds: float, is_there: Callable[[int], bool]) -> None:
        self.folder, self._is_there = folder, is_there
        self._all_ns = int(seconds * 1e9)
        self._each_ns = self._all_ns // _SEGMENTS
        self.number = 0  # of the current segment
        self._whole: deque[tuple[int, int]] = (
            deque()
        )  # complete segments: (number, time of its end)
        self._due = 0
        self._run: bytes | None = None
        self._requests: dict[int, bytes] = {}
        # The REQUEST record of the last request that was left out. One is enough to show that
        # requests were left out, so that sums over batches include others.
        self._left_out: dict[int, bytes] = {}
        self._ended: dict[int, int] = {}  # qid -> time since which no more events are expected
        self._last = (time.monotonic_ns(), 0)  # stamp of the last event
        folder.mkdir()

    def is_due(self) -> bool:
        return time.monotonic_ns() >= self._due

    def postpone(self) -> None:
        """Try again later, because the disk has no room for another segment.

        Each attempt adds a few bytes to the current segment.
        """
        self._due = time.monotonic_ns() + _AGAIN_NS

    def next_path(self) -> Path:
        return self.folder / f"{self.number + 1:08}.segment"

    def turned_over(self) -> None:
        """Note that the next segment was begun, and delete all segments that are too old."""
        now = time.monotonic_ns()
        if self.number:
            self._whole.append((self.number, now))
        self.number += 1
        self._due = now + self._each_ns
        while self._whole and now - self._whole[0][1] > self._all_ns:
            oldest, _ = self._whole.popleft()
            with contextlib.suppress(OSError):  # if it cannot be deleted, it only uses disk space
                (self.folder / f"{oldest:08}.segment").unlink(missing_ok=True)
        self._forget(now)

    def _forget(self, now: int) -> None:
        """Forget requests that ended some time ago. They are kept until then because a late result may
        still name them."""
        for qid in self._requests.keys() - self._ended.keys():
            if not self._is_there(qid):
                self._ended[qid] = now
        for qid in [qid for qid, since in self._ended.items() if now - since >= self._each_ns]:
            del self._ended[qid], self._requests[qid]

    def head(self) -> Records:
        """Return the records with which the next segment begins."""
        head: Records = [] if self._run is None else [(journal.Type.RUN, self._run)]
        named = self._left_out | self._requests
        head += [(journal.Type.REQUEST, named[qid]) for qid in sorted(named)]
        return [*head, (Kind.GAP, pack_event(Kind.GAP, *self._last, (1,)))]

    def note(self, type: Kind | journal.Type, payload: bytes) -> None:
        """Take note of a record that is about to be written."""
        if type == journal.Type.RUN:
            self._run = payload
        elif type == journal.Type.REQUEST:
            record = json.loads(payload)
            self._requests[record["qid"]] = payload
            if record.get("left_out"):
                self._left_out = {record["qid"]: payload}
        elif type not in (journal.Type.STATS, journal.Type.NEXT):
            self._last = _STAMP.unpack_from(payload)
            if type in (Kind.FINISH, Kind.ABORT):
                qid, from_queue = _FIELDS.unpack_from(payload, _STAMP.size)
                if qid in self._requests and (type == Kind.FINISH or from_queue):
                    self._ended[qid] = time.monotonic_ns()

    def keep(self, folder: Path, number: int) -> None:
        """Keep all segments before segment `number` in another folder, from which none is deleted.

        The folder gets its name when it is complete. Raises OSError if it cannot be made, or if all
        segments were deleted meanwhile; then nothing is left of it.
        """
        partial = folder.with_name(folder.name + journal.PARTIAL)
        try:
            partial.mkdir()
            for path in sorted(self.folder.glob("*.segment")):
                if path.name < f"{number:08}":
                    # The oldest may be deleted meanwhile.
                    with contextlib.suppress(FileNotFoundError):
                        _link(path, partial / path.name)
            if not any(partial.iterdir()):
                raise OSError(
                    f"all segments of {self.folder} were deleted before they could be kept. Use a longer --ring than "
                    f"{self._all_ns / 1e9:g}s"
                )
            partial.rename(folder)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _link(path: Path, other: Path) -> None:
    """Hard-link a segment, which takes no time or space. Copy it if the file system has no links."""
    try:
        os.link(path, other)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(path, other)
