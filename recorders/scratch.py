"""The file that something is written to before it has its name: its writer's own, held until then (standard library only)."""

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
    """A new file beside `path`, which nobody else writes to; gone at the end, unless it was renamed. Raises OSError."""
    _clear(path.parent, re.compile(re.escape(path.name) + _SUFFIX.pattern))
    file = _begin(path)
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):
            os.unlink(file.name)
        file.close()


def clear(folder: Path) -> None:
    """Take away what killed writers of recordings left."""
    _clear(folder, _RECORDINGS)


def _begin(path: Path) -> BinaryIO:
    while True:
        name = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        file = open(name, "x+b")  # noqa: SIM115 (held on to)
        with contextlib.suppress(OSError):  # no locks here: then nobody clears, either
            fcntl.flock(file, fcntl.LOCK_SH)  # HDF5 takes a shared one to read it back
        if is_named(file.fileno(), name):
            return file
        file.close()  # somebody cleared it before it was held


def is_named(fd: int, name: Path) -> bool:
    """Whether an open file, or folder, is what has that name still."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(name))
    except FileNotFoundError:
        return False


def _clear(folder: Path, left: re.Pattern[str]) -> None:
    """What cannot be listed, opened or held may be somebody's."""
    with contextlib.suppress(OSError):
        for path in [one for one in folder.iterdir() if left.fullmatch(one.name)]:
            with contextlib.suppress(OSError), open(path, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
