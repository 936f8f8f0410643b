"""A listening Unix socket and its file (standard library only).

The server may close the socket while the file stays, and the file may be deleted while the socket
is open.
"""

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
    file: Identity  # of the socket's file, which differs from that of its descriptor

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
    """Listen on the control socket of process `pid`. Raises OSError if that is not possible."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path = socket_of(pid)
        if path.exists() and not is_dead(path):
            raise OSError(
                f"{path} belongs to a process {pid} in another PID namespace. Set {RUNTIME} to a different folder in one "
                "of the two"
            )
        scratch = path.with_suffix(".made")  # no longer than `path`, as socket paths are limited
        scratch.unlink(missing_ok=True)
        sock.bind(str(scratch))
        scratch.chmod(0o600)
        sock.listen(64)
        sock.setblocking(False)
        found = scratch.lstat()
        # Renamed only now, so that whatever connects finds a listening socket. This replaces the
        # socket of a dead process.
        scratch.replace(path)
        return Listener(OurSocket(sock), path.absolute(), (found.st_dev, found.st_ino))
    except OSError:
        sock.close()
        raise
