"""Send a request to the recorder in another process, and read its answer."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .recover import is_locked
from .runtime import is_same_user

_TIMEOUT_S = 15.0  # longer than the recorder's own timeout for its disk
_LONGEST = 1 << 16  # maximum size of an answer in bytes
_TOO_LATE = (
    "no answer within {:.0f} s. If the process has begun this request it will finish it; if not, it will not begin "
    "it later. Ask it for `status`"
)


@dataclass(frozen=True, slots=True, order=True)
class Process:
    """A process with the recorder in it."""

    pid: int
    socket: Path
    # Identifies the process: one in another container, with the same pid, may listen on this path.
    key: str | None = None


@dataclass(frozen=True, slots=True)
class ControlAnswer:
    """The answer of one process to a control request. `error` is set if the request failed or got no answer."""

    pid: int
    fields: dict[str, Any]

    @property
    def error(self) -> str | None:
        found = self.fields.get("error")
        return None if found is None else str(found)

    @property
    def flushed(self) -> str:
        """The answer to a `flush`, in words."""
        if not self.fields.get("written"):
            return (
                self.error
                or self.fields.get("note")
                or "not everything could be written to disk; see the process's log"
            )
        return f"everything up to now is in {self.journal}"

    @property
    def kept(self) -> str | None:
        """Why an ended journal cannot be built yet, and what to do; None if it can be built."""
        kept = self.fields.get("kept")
        if kept is None or self.journal is None or not is_locked(self.journal):
            return None
        disk = f"cannot be written ({kept['disk']})" if kept["disk"] else "is too slow"
        return (
            f"{kept['waiting_bytes']:,} bytes of events wait in process {self.pid} to be written, because the disk {disk}. "
            f"When the disk is ready, run `specdiff record --attach {self.pid} stop`"
        )

    @property
    def journal(self) -> Path | None:
        found = self.fields.get("journal")
        return None if found is None else Path(found)


def ask(process: Process, request: dict[str, Any]) -> ControlAnswer:
    """Send a request to a process and return its answer, or a ControlAnswer with an error."""
    try:
        fields = _exchange(
            process.socket, {**request, **({"key": process.key} if process.key else {})}
        )
    except TimeoutError:
        fields = {"error": _TOO_LATE.format(_TIMEOUT_S)}
    except (OSError, ValueError) as error:
        fields = {"error": f"cannot be reached ({error})"}
    return ControlAnswer(process.pid, fields)


def _exchange(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_TIMEOUT_S)
        sock.connect(str(path))
        # The path may come from a note, which another user may have written.
        if not is_same_user(sock):
            raise OSError(f"{path} belongs to another user")
        sock.sendall(json.dumps(request).encode() + b"\n")
        fields: dict[str, Any] = json.loads(_line(sock) or b'{"error": "no answer"}')
        return fields


def _line(sock: socket.socket) -> bytes:
    """Read the answer. Raises TimeoutError if there is none in time.

    The connection is shut down then, so that the recorder notices that its answer cannot be
    delivered.
    """
    with sock.makefile("rb") as answer:
        try:
            return answer.readline()
        except TimeoutError:
            sock.shutdown(socket.SHUT_RDWR)
    late = sock.recv(_LONGEST)  # it may have arrived between the timeout and the shutdown
    if not late:
        raise TimeoutError
    return late
