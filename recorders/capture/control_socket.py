"""The control socket of this process, and its client connections (standard library only)."""

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

_EVERY_S = 0.1  # how long `next_request` waits, so that its caller can also do other work
_LOOK_S = 2.0  # how often to check that the socket's file still exists
_MOST = 8  # how many clients may be connected at a time: each takes a descriptor of the server


class ControlSocket:
    """Accepts clients and reads their requests, without ever blocking on one of them.

    Other clients may send requests meanwhile, and the calling thread has to check limits.
    """

    def __init__(self, on_listen: Callable[[Path], None]) -> None:
        """`on_listen` is called with the path of the socket each time it begins to listen."""
        self._pid, self._on_listen = os.getpid(), on_listen
        self._pending: list[Connection] = []  # connected, request not complete; the oldest first
        self._returned: Connection | None = None  # the last one that `next_request` returned
        self._logged_error: str | None = None  # the last error logged about the socket
        self._open = self._listen()
        self._report_path()
        self._is_over = False  # no new socket: the server closed ours, or the process is ending
        self._look_at = time.monotonic() + _LOOK_S
        os.register_at_fork(after_in_child=self._leave_to_parent)
        atexit.register(self._leave)

    def next_request(self) -> Connection | None:
        """Return the next connection with a complete request, or None if there is none for a while.

        The caller closes it.
        """
        self._look_at_the_descriptor()
        self._look_at_the_name()
        ready = self._wait()
        for connection in tuple(self._pending):
            if connection.fileno() in ready and connection.is_ours():
                if connection.read_request():
                    self._returned = connection
                    self._pending.remove(connection)
                    return connection
            elif connection.has_timed_out():
                self._drop(connection)
        listening = None if self._open is None else self._open.ours
        if listening is not None and listening.sock.fileno() in ready and listening.is_ours():
            self._let_in(listening.sock)
        return None

    def _look_at_the_descriptor(self) -> None:
        if self._open is not None and not self._open.ours.is_ours():
            self._open.ours.close()
            self._open.leave()
            self._open, self._is_over = None, True
            logger.warning(
                "specdiff: the server has closed the control socket of process %d, so `record --attach` can no longer "
                "reach it. The server goes on.",
                self._pid,
            )

    def _look_at_the_name(self) -> None:
        """Listen anew if the socket's file was deleted.

        Cleaners of temporary files may delete it, and the end of a user's last login session may
        delete its whole folder.
        """
        if self._is_over or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_S
        gone = self._open
        if gone is not None and gone.is_at_its_name():
            return
        again = self._open = self._listen() or gone
        if self._is_over:  # the process began to end meanwhile
            self._leave()
        elif again is not None and again is not gone:
            self._report_path()
            if gone is not None:
                gone.ours.close()
            logger.warning(
                "specdiff: `record --attach` can reach process %d again, at %s",
                self._pid,
                again.path,
            )

    def _listen(self) -> Listener | None:
        """Open the socket. If that fails, log the reason once and return None; recording goes on."""
        try:
            listener = listen(self._pid)
        except OSError as error:
            if self._logged_error != str(error):
                logger.warning(
                    "specdiff: `record --attach` cannot reach process %d: %s", self._pid, error
                )
            self._logged_error = str(error)
            return None
        self._logged_error = None
        return listener

    def _report_path(self) -> None:
        if self._open is not None:
            self._on_listen(self._open.path)

    def _wait(self) -> set[int]:
        """Return the descriptors that have something to read.

        `poll`, unlike `epoll`, has no descriptor of its own that the server could close.
        """
        waits = select.poll()
        for connection in tuple(self._pending):
            if connection.is_ours():
                waits.register(connection, select.POLLIN)
            else:
                self._drop(connection)
        if self._open is not None:
            waits.register(self._open.ours.sock, select.POLLIN)
        return {fd for fd, _ in waits.poll(_EVERY_S * 1e3)}

    def _let_in(self, listening: socket.socket) -> None:
        try:
            connection = Connection(listening.accept()[0])
        except OSError:  # for example, the process has no descriptor left: try again later
            time.sleep(_EVERY_S)
            return
        self._pending.append(connection)
        if not connection.is_same_user():
            self._drop(connection)
        elif len(self._pending) > _MOST:
            self._drop(self._pending[0])

    def _drop(self, connection: Connection) -> None:
        self._pending.remove(connection)
        connection.close()

    def _leave_to_parent(self) -> None:
        """In a fork: close the descriptors, which belong to the parent."""
        for connection in (*self._pending, self._returned):
            if connection is not None:
                connection.close()
        if self._open is not None:
            self._open.ours.close()

    def _leave(self) -> None:
        """At exit: delete the socket's file. A fork that ends does not delete its parent's."""
        self._is_over = True
        if os.getpid() == self._pid and self._open is not None:
            self._open.leave()
