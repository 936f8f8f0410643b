"""The Unix socket at which this process is asked, and those who have come to it (standard library only)."""

from __future__ import annotations

import atexit
import logging
import os
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path

from .connection import Connection
from .listener import Listener, listen

logger = logging.getLogger("specdiff")

_EVERY_S = 0.1  # how often whoever waits here has a look at something else
_LOOK_S = 2.0  # how often at the socket's name
_MOST = 8  # who may be silent here at a time: each takes a descriptor of the server's


class ControlSocket:
    """Nobody who comes is waited for: others may ask meanwhile, and who waits here has limits to look at."""

    def __init__(self, told: Callable[[Path], None]) -> None:
        """`told` is called with every place where it listens from then on."""
        self._pid, self._told = os.getpid(), told
        self._came: list[Connection] = []  # and have not asked yet, the oldest first
        self._asking: Connection | None = None  # who was let through last
        self._said: str | None = None  # why there is no socket
        self._open = self._listen()
        self._tell()
        self._is_over = False  # the server wants no descriptor of ours
        self._look_at = time.monotonic() + _LOOK_S
        os.register_at_fork(after_in_child=self._leave_to_parent)
        atexit.register(self._leave)

    def who_asks(self) -> Connection | None:
        """The next, whom the caller closes; None where nobody does for a while."""
        self._look_at_the_descriptor()
        self._look_at_the_name()
        ready = self._wait()
        for connection in tuple(self._came):
            if connection.fileno() in ready and connection.is_ours():
                if connection.has_asked():
                    self._asking = connection
                    self._came.remove(connection)
                    return connection
            elif connection.is_silent():
                self._send_away(connection)
        listening = None if self._open is None else self._open.ours
        if listening is not None and listening.made.fileno() in ready and listening.is_ours():
            self._let_in(listening.made)
        return None

    def _look_at_the_descriptor(self) -> None:
        if self._open is not None and not self._open.ours.is_ours():
            self._open.ours.close()
            self._open.leave()
            self._open, self._is_over = None, True
            logger.warning(
                "specdiff: the server has closed the socket of process %d: it cannot be asked any more (`record --attach`). "
                "The server goes on.",
                self._pid,
            )

    def _look_at_the_name(self) -> None:
        """Cleaners of temporary files take it away, and the end of a user's last session its whole folder."""
        if self._is_over or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_S
        gone = self._open
        if gone is not None and gone.is_at_its_name():
            return
        again = self._open = self._listen() or gone
        if self._is_over:  # the process has begun to end
            self._leave()
        elif again is not None and again is not gone:
            self._tell()
            if gone is not None:
                gone.ours.close()
            logger.warning(
                "specdiff: process %d can be asked again (`record --attach`), at %s",
                self._pid,
                again.path,
            )

    def _listen(self) -> Listener | None:
        """Where there can be no socket the log says why, once, and recording goes on as it was asked for."""
        try:
            made = listen(self._pid)
        except OSError as error:
            if self._said != str(error):
                logger.warning("specdiff: no `record --attach` to process %d: %s", self._pid, error)
            self._said = str(error)
            return None
        self._said = None
        return made

    def _tell(self) -> None:
        if self._open is not None:
            self._told(self._open.path)

    def _wait(self) -> set[int]:
        """The descriptors at which something has come. (A poll has none of its own that the server could close.)"""
        waits = select.poll()
        for connection in tuple(self._came):
            if connection.is_ours():
                waits.register(connection, select.POLLIN)
            else:
                self._send_away(connection)
        if self._open is not None:
            waits.register(self._open.ours.made, select.POLLIN)
        return {fd for fd, _ in waits.poll(_EVERY_S * 1e3)}

    def _let_in(self, listening: socket.socket) -> None:
        try:
            connection = Connection(listening.accept()[0])
        except OSError:  # no descriptor is left, say: who asks waits, and so do we
            time.sleep(_EVERY_S)
            return
        self._came.append(connection)
        if not connection.is_same_user():
            self._send_away(connection)
        elif len(self._came) > _MOST:
            self._send_away(self._came[0])

    def _send_away(self, connection: Connection) -> None:
        self._came.remove(connection)
        connection.close()

    def _leave_to_parent(self) -> None:
        """In a fork."""
        for connection in (*self._came, self._asking):
            if connection is not None:
                connection.close()
        if self._open is not None:
            self._open.ours.close()

    def _leave(self) -> None:
        """At the end. A fork that ends leaves its parent's socket where it is."""
        self._is_over = True
        if os.getpid() == self._pid and self._open is not None:
            self._open.leave()
