"""The Unix socket at which this process is asked, and those who have come to it (standard library only)."""

from __future__ import annotations

import atexit
import logging
import os
import select
import socket
import time
from pathlib import Path

from ..runtime import RUNTIME, is_dead, socket_of
from .asker import Asker
from .descriptor import OurSocket

logger = logging.getLogger("specdiff")

_EVERY_S = 0.1  # how often whoever waits here has a look at something else
_MOST = 8  # who may be silent here at a time: each takes a descriptor of the server's


class Door:
    """Nobody who comes is waited for: others may ask meanwhile, and who waits here has limits to look at."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._came: list[Asker] = []  # and have not asked yet, the oldest first
        self._open = _listen()
        os.register_at_fork(after_in_child=self._leave_to_parent)

    def who_asks(self) -> Asker | None:
        """The next, whom the caller closes; None where nobody does for a while."""
        self._look_at_the_descriptor()
        ready = self._wait()
        for asker in tuple(self._came):
            if asker.fileno() in ready and asker.is_ours():
                if asker.has_asked():
                    self._came.remove(asker)
                    return asker
            elif asker.is_silent():
                self._send_away(asker)
        if self._open is not None and self._open.made.fileno() in ready and self._open.is_ours():
            self._let_in(self._open.made)
        return None

    def _look_at_the_descriptor(self) -> None:
        if self._open is not None and not self._open.is_ours():
            self._open.close()
            self._open = None
            logger.warning(
                "specdiff: the server has closed the socket of process %d: it cannot be asked any more (`record --attach`). "
                "The server goes on.",
                self._pid,
            )

    def _wait(self) -> set[int]:
        """The descriptors at which something has come. (A poll has none of its own that the server could close.)"""
        waits = select.poll()
        for asker in tuple(self._came):
            if asker.is_ours():
                waits.register(asker, select.POLLIN)
            else:
                self._send_away(asker)
        if self._open is not None:
            waits.register(self._open.made, select.POLLIN)
        return {fd for fd, _ in waits.poll(_EVERY_S * 1e3)}

    def _let_in(self, door: socket.socket) -> None:
        try:
            asker = Asker(door.accept()[0])
        except OSError:  # no descriptor is left, say: who asks waits, and so do we
            time.sleep(_EVERY_S)
            return
        self._came.append(asker)
        if not asker.is_same_user():
            self._send_away(asker)
        elif len(self._came) > _MOST:
            self._send_away(self._came[0])

    def _send_away(self, asker: Asker) -> None:
        self._came.remove(asker)
        asker.close()

    def _leave_to_parent(self) -> None:
        """In a fork."""
        for asker in tuple(self._came):
            asker.close()
        if self._open is not None:
            self._open.close()


def _listen() -> OurSocket | None:
    """None where there can be no socket: the log says so, and recording goes on as it was asked for."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path = socket_of(os.getpid())
        if path.exists() and not is_dead(path):
            raise OSError(
                f"{path} is of process {os.getpid()} of another PID namespace. Set {RUNTIME} to another folder in one of them"
            )
        scratch = path.with_suffix(".new")
        scratch.unlink(missing_ok=True)
        made.bind(str(scratch))
        scratch.chmod(0o600)
        made.listen(64)
        made.setblocking(False)
        scratch.replace(path)  # who finds it there finds it listening; a dead process's goes
    except OSError as error:
        made.close()
        logger.warning("specdiff: no `record --attach` to process %d: %s", os.getpid(), error)
        return None
    atexit.register(_leave, path, os.getpid())
    return OurSocket(made)


def _leave(path: Path, pid: int) -> None:
    """A fork that ends leaves its parent's socket where it is."""
    if os.getpid() == pid:
        path.unlink(missing_ok=True)
