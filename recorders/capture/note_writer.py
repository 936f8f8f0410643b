"""The note: lines of JSON next to the journals that tell the parent process what records here."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..file_names import note_name
from .descriptor import Identity, identity, is_still

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class NoteWriter:
    """The note of this process. It is locked for as long as the process lives.

    A fork begins a note of its own with the first line that it adds.
    """

    def __init__(self, directory: Path, run_id: str, first: Callable[[], dict[str, Any]]) -> None:
        """`first` returns what the first line says besides the pid."""
        self._directory, self._run_id, self._first = directory, run_id, first
        self._fd = self._pid = -1
        self._identity: Identity | None = None
        self._unwritten = b""  # what a full disk refused: the rest of a line, or whole lines
        self._path = Path()
        self._lock = threading.RLock()  # the control thread adds lines, too
        os.register_at_fork(after_in_child=self._forked)

    def open(self) -> None:
        """Create the note, or open it again, and write its first line.

        An OSError is ignored: the journal cannot be created either then, and that is reported.
        """
        with contextlib.suppress(OSError):
            self._open()

    def add(self, **what: Any) -> None:
        """Append one line, and before it what could not be written earlier."""
        with self._lock:
            if os.getpid() != self._pid or not is_still(self._fd, self._identity):
                self.open()  # this is a fork with its own scheduler, or the server closed the note
            self._unwritten += json.dumps(what).encode() + b"\n"
            with contextlib.suppress(OSError):
                self._unwritten = self._unwritten[os.write(self._fd, self._unwritten) :]

    def _open(self) -> None:
        # Do not close the old descriptor: in a fork it is the parent's, and otherwise it may by now
        # be a file that the server opened.
        self._fd = -1
        if self._pid == os.getpid():
            self._fd = os.open(self._path, _FLAGS, 0o644)
        else:
            self._fd, self._path = self._created()
        self._pid, self._identity = os.getpid(), identity(self._fd)
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        self.add(pid=os.getpid(), **self._first())

    def _created(self) -> tuple[int, Path]:
        """Create a new note. A process with the same pid in another container may have one, too."""
        for number in itertools.count():
            path = self._directory / note_name(self._run_id, os.getpid(), number)
            with contextlib.suppress(FileExistsError):
                return os.open(path, _FLAGS | os.O_EXCL, 0o644), path
        raise AssertionError("there is always another number")

    def _forked(self) -> None:
        self._lock = threading.RLock()  # the parent's may be held by a thread that is not here
        self._unwritten = b""  # the parent writes it
