"""Somebody who has come to ask: one line is read of him, never waited for, and one is told (standard library only)."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from typing import Any

from ..runtime import is_same_user
from .descriptor import OurSocket

_PATIENCE_S = 5.0  # with one who says nothing
_LONGEST = 1 << 16  # bytes of a question


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
        """Reads what is there. A line, or the end of what comes, is a question."""
        try:
            more = self._ours.made.recv(_LONGEST)
        except BlockingIOError:
            return False
        self.question += more
        return not more or self.question.endswith(b"\n") or len(self.question) >= _LONGEST

    def is_gone(self) -> bool:
        """Not one who has only ended his question (`shutdown(SHUT_WR)`), and waits for the answer."""
        waits = select.poll()
        waits.register(self, 0)  # that nobody is there any more is always told
        return bool(waits.poll(0))

    def tell(self, answer: dict[str, Any]) -> bool:
        """Whether he has it. A stop takes seconds on a disk that refuses: by now the descriptor may be another file's."""
        line = json.dumps(answer).encode() + b"\n"
        try:
            if self.is_ours():
                self._ours.made.sendall(line, socket.MSG_NOSIGNAL)  # which would end some servers
                return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._ours.close()
