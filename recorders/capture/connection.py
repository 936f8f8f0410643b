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

_PATIENCE_S = 5.0  # how long a client may send nothing
_LONGEST = 1 << 16  # maximum size of a request in bytes


class Connection:
    def __init__(self, made: socket.socket) -> None:
        made.setblocking(False)
        self._ours = OurSocket(made)
        self._until = time.monotonic() + _PATIENCE_S
        self.question = b""

    def fileno(self) -> int:
        return self._ours.made.fileno()

    def is_ours(self) -> bool:
        return self._ours.is_ours()

    def is_silent(self) -> bool:
        return time.monotonic() > self._until

    def is_same_user(self) -> bool:
        return is_same_user(self._ours.made)

    def has_asked(self) -> bool:
        """Read what has arrived, and return whether the request is complete.

        It is complete at the end of a line, at the end of the stream, or at its maximum size.
        """
        try:
            more = self._ours.made.recv(_LONGEST)
        except BlockingIOError:
            return False
        self.question += more
        return not more or self.question.endswith(b"\n") or len(self.question) >= _LONGEST

    def is_gone(self) -> bool:
        """Whether the client has disconnected.

        A client that has only ended its request (`shutdown(SHUT_WR)`) still waits for the answer.
        """
        waits = select.poll()
        waits.register(self, 0)  # poll always reports a hangup, whatever events are requested
        return bool(waits.poll(0))

    def tell(self, answer: dict[str, Any]) -> bool:
        """Send the answer, and return whether that worked.

        On a slow disk a stop takes seconds, so the server may have closed our descriptor by now and
        opened another file under its number.
        """
        line = json.dumps(answer).encode() + b"\n"
        try:
            if self.is_ours():
                # Without MSG_NOSIGNAL, a SIGPIPE could kill the server.
                self._ours.made.sendall(line, socket.MSG_NOSIGNAL)
                return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._ours.close()
