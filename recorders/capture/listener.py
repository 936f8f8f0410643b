"""A Unix socket that listens, and the name at which others find it: each may go without the other (standard library only)."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from pathlib import Path

from ..runtime import RUNTIME, is_dead, socket_of
from .descriptor import Identity, OurSocket


@dataclass(frozen=True, slots=True)
class Listener:
    ours: OurSocket
    path: Path
    file: Identity  # of the name's: a socket's descriptor has another

    def is_at_its_name(self) -> bool:
        try:
            found = self.path.lstat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self.file

    def leave(self) -> None:
        if self.is_at_its_name():
            with contextlib.suppress(OSError):
                self.path.unlink()


def listen(pid: int) -> Listener:
    """Raises OSError where there can be no socket."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path = socket_of(pid)
        if path.exists() and not is_dead(path):
            raise OSError(
                f"{path} is of process {pid} of another PID namespace. Set {RUNTIME} to another folder in one of them"
            )
        scratch = path.with_suffix(".made")  # as long as its own
        scratch.unlink(missing_ok=True)
        made.bind(str(scratch))
        scratch.chmod(0o600)
        made.listen(64)
        made.setblocking(False)
        found = scratch.lstat()
        scratch.replace(path)  # who finds it there finds it listening; a dead process's goes
        return Listener(OurSocket(made), path.absolute(), (found.st_dev, found.st_ino))
    except OSError:
        made.close()
        raise
