"""Temporary files that are renamed to their final name when complete (standard library only).

The writer holds a lock on its file, so that a file left by a killed writer can be recognized.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_SUFFIX = re.compile(r"\.[0-9a-f]{8}\.tmp")
_RECORDINGS = re.compile(rf".*\.h5{_SUFFIX.pattern}")


@contextlib.contextmanager
def scratch(path: Path) -> Iterator[BinaryIO]:
    """Create a temporary file beside `path`, and delete it at the end unless it was renamed.

    No other process writes to it. Raises OSError.
    """
    _clear(path.parent, re.compile(re.escape(path.name) + _SUFFIX.pattern))
    file = _begin(path)
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):
            os.unlink(file.name)
        file.close()


def clear(folder: Path) -> None:
    """Delete the temporary files that killed writers of recordings left in `folder`."""
    _clear(folder, _RECORDINGS)


def _begin(path: Path) -> BinaryIO:
    while True:
        name = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        file = open(name, "x+b")  # noqa: SIM115 (the caller closes it)
        # If the file system has no locks, `clear` cannot take one either, and deletes nothing.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_SH)  # shared, because HDF5 takes one to read the file back
        if is_named(file.fileno(), name):
            return file
        file.close()  # another process deleted it before it was locked


def is_named(fd: int, name: Path) -> bool:
    """Whether the path `name` still refers to this open file or folder."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(name))
    except FileNotFoundError:
        return False


def _clear(folder: Path, left: re.Pattern[str]) -> None:
    """Delete the files whose names match, except for those that cannot be opened or locked: another
    process may be using them."""
    with contextlib.suppress(OSError):
        for path in [one for one in folder.iterdir() if left.fullmatch(one.name)]:
            with contextlib.suppress(OSError), open(path, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
