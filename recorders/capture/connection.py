"""A client connection to the control socket: one line in, one line out (standard library only).

Reading never blocks.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from typing import Any

from ..runtime import is_same_user
from .descriptor import OurSocket

_TIMEOUT_S = 5.0  # how long after connecting a request may still be incomplete
_LONGEST = 1 << 16  # maximum size of a request in bytes


class Connection:
    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._ours = OurSocket(sock)
        self._until = time.monotonic() + _TIMEOUT_S
        self.request = b""

    def fileno(self) -> int:
        return self._ours.sock.fileno()

    def is_ours(self) -> bool:
        return self._ours.is_ours()

    def has_timed_out(self) -> bool:
        return time.monotonic() > self._until

    def is_same_user(self) -> bool:
        return is_same_user(self._ours.sock)

    def read_request(self) -> bool:
        """Read what has arrived, and return whether the request is complete.

        It is complete at the end of a line, at the end of the stream, or at its maximum size.
        """
        try:
            more = self._ours.sock.recv(_LONGEST)
        except BlockingIOError:
            return False
        self.request += more
        return not more or self.request.endswith(b"\n") or len(self.request) >= _LONGEST

    def is_gone(self) -> bool:
        """Whether the client has disconnected.

        A client that has only ended its request (`shutdown(SHUT_WR)`) still waits for the answer.
        """
        waits = select.poll()
        waits.register(self, 0)  # poll always reports a hangup, whatever events are requested
        return bool(waits.poll(0))

    def send(self, answer: dict[str, Any]) -> bool:
        """Send the answer, and return whether that worked.

        On a slow disk a stop takes seconds, so the server may have closed our descriptor by now and
        opened another file under its number.
        """
        line = json.dumps(answer).encode() + b"\n"
        try:
            if self.is_ours():
                # Without MSG_NOSIGNAL, a SIGPIPE could kill the server.
                self._ours.sock.sendall(line, socket.MSG_NOSIGNAL)
                return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._ours.close()
