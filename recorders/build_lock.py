"""One builder of a journal at a time, and what another has made of it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from . import hdf5
from .names import of_whom, recordings_of
from .recording import Recording
from .scratch import is_named


@contextlib.contextmanager
def build_lock(journal: Path) -> Iterator[None]:
    """Until nobody else builds it, and while we do. Not the lock by which a writer is known: that is a record lock.

    Raises FileNotFoundError where it is gone then.
    """
    handle = os.open(journal, os.O_RDONLY)
    try:
        # Not every file system can (NFS asks for a descriptor to write to): then two build it, each in its own file.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        if not is_named(handle, journal):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(journal))
        yield
    finally:
        os.close(handle)


def built_of(journal: Path) -> tuple[Path, Recording] | None:
    """The recording beside the place where a journal was; None where there is none. Raises RecordingError where it is damaged,
    and OSError."""
    for path in recordings_of(journal):
        recording = hdf5.load(path)
        if (recording.run.run_id, str(recording.run.pid)) == of_whom(journal):
            return path, recording
    return None
