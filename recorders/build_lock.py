"""Lock a journal while it is built, and find the recording that another process built from it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from . import hdf5
from .file_names import recordings_of, run_and_pid_of
from .recording import Recording
from .scratch import is_named

logger = logging.getLogger("specdiff")


@contextlib.contextmanager
def build_lock(journal: Path) -> Iterator[None]:
    """Wait until no other process builds `journal`, then hold the lock for the body.

    If this process has to wait, it logs that. The lock is a flock, which is independent of the
    record lock that marks a journal as still written.

    Raises FileNotFoundError if the journal is gone once the lock is held.
    """
    handle = os.open(journal, os.O_RDONLY)
    try:
        # Some file systems cannot lock here (NFS needs a descriptor open for writing). Then two
        # processes may build the journal at once, each into its own temporary file.
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.warning("specdiff: %s: waiting for another process that builds it", journal)
                fcntl.flock(handle, fcntl.LOCK_EX)
        if not is_named(handle, journal):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(journal))
        yield
    finally:
        os.close(handle)


def built_of(journal: Path) -> tuple[Path, Recording] | None:
    """Return the recording built from `journal` and its path, or None if there is none beside it.

    `journal` itself may be gone. Raises OSError, and RecordingError if the recording is damaged.
    """
    for path in recordings_of(journal):
        recording = hdf5.load(path)
        if (recording.run.run_id, str(recording.run.pid)) == run_and_pid_of(journal):
            return path, recording
    return None
