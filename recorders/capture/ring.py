"""A journal that keeps the last minutes only: a folder of segments, of which the oldest go (standard library only).

Every segment but the first begins with a head: who records, the requests under way, and a gap that stands for all that came
before. So any run of segments is a journal, whenever the process dies; `journal.scan` puts them together again.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
from pathlib import Path

from .. import journal
from ..schema import Kind
from ..wire import pack_event

_SEGMENTS = 8  # that the time is cut into: at most one of them too many is kept
_STAMP = struct.Struct("<QI")
_FIELDS = struct.Struct("<2q")  # the first two fields of an event, behind its stamp

Records = list[tuple[Kind | journal.Type, bytes]]


class Ring:
    """Only the holder of the writer's lock is here. `seconds` are kept at least."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        self._each_ns = int(seconds / _SEGMENTS * 1e9)
        self.number = 0  # of the segment that is being written
        self._due = 0
        self._run: bytes | None = None
        self._requests: dict[int, bytes] = {}
        self._ended: dict[int, int] = {}  # qid -> the segment in which nothing more was to come
        self._last = (time.monotonic_ns(), 0)  # stamp of the last event
        folder.mkdir()

    def is_due(self) -> bool:
        return time.monotonic_ns() >= self._due

    def next_path(self) -> Path:
        return self.folder / f"{self.number + 1:08}.segment"

    def turned_over(self) -> None:
        """The next segment is being written; what is older than the ring goes."""
        self.number += 1
        self._due = time.monotonic_ns() + self._each_ns
        oldest = self.number - _SEGMENTS - 1
        if oldest > 0:
            with contextlib.suppress(OSError):  # one that cannot go only takes room
                (self.folder / f"{oldest:08}.segment").unlink(missing_ok=True)
        for qid in [qid for qid, number in self._ended.items() if number < self.number - 1]:
            del self._ended[qid], self._requests[qid]  # a late result may name it one segment on

    def head(self) -> Records:
        head: Records = [] if self._run is None else [(journal.Type.RUN, self._run)]
        head += [(journal.Type.REQUEST, self._requests[qid]) for qid in sorted(self._requests)]
        return [*head, (Kind.GAP, pack_event(Kind.GAP, *self._last, (1,)))]

    def note(self, type: Kind | journal.Type, payload: bytes) -> None:
        """A record that is about to be written."""
        if type == journal.Type.RUN:
            self._run = payload
        elif type == journal.Type.REQUEST:
            self._requests[json.loads(payload)["qid"]] = payload
        elif type != journal.Type.STATS:
            self._last = _STAMP.unpack_from(payload)
            if type in (Kind.FINISH, Kind.ABORT):
                qid, from_queue = _FIELDS.unpack_from(payload, _STAMP.size)
                if qid in self._requests and (type == Kind.FINISH or from_queue):
                    self._ended[qid] = self.number

    def keep(self, folder: Path) -> None:
        """All whole segments under another name, where they stay: links, so that it takes no time and no room."""
        folder.mkdir()
        for path in sorted(self.folder.glob("*.segment")):
            if path.name < f"{self.number:08}":
                os.link(path, folder / path.name)
