"""Asking a recorder that is at work in another process, and what it answers."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .recover import is_locked
from .runtime import is_same_user

_PATIENCE_S = 15.0  # longer than the recorder's own for its disk
_LONGEST = 1 << 16  # bytes of an answer
_TOO_LATE = "cannot be asked (no answer within {:.0f} s). It does nothing of this later but what it has begun by now: ask for its status"


@dataclass(frozen=True, slots=True, order=True)
class Process:
    """One with the recorder in it."""

    pid: int
    socket: Path
    key: str | None = None  # who is meant: another container's process may listen there


@dataclass(frozen=True, slots=True)
class Answer:
    """What one process said; `error` where it could not, or was not there to answer."""

    pid: int
    said: dict[str, Any]

    @property
    def error(self) -> str | None:
        found = self.said.get("error")
        return None if found is None else str(found)

    @property
    def flushed(self) -> str:
        """Of a flush, in words."""
        if not self.said.get("written"):
            return (
                self.error
                or self.said.get("note")
                or "the disk did not take all of it; see its log"
            )
        return f"what happened up to now is in {self.journal}"

    @property
    def kept(self) -> str | None:
        """Why a journal that was ended cannot be built yet, and what to do; None where it can."""
        kept = self.said.get("kept")
        if kept is None or self.journal is None or not is_locked(self.journal):
            return None
        disk = f"refuses: {kept['disk']}" if kept["disk"] else "is too slow"
        return (
            f"{kept['waiting_bytes']:,} bytes of events wait in process {self.pid} to be written, as the disk {disk}. "
            f"Once it takes them: specdiff record --attach {self.pid} stop"
        )

    @property
    def journal(self) -> Path | None:
        found = self.said.get("journal")
        return None if found is None else Path(found)


def ask(process: Process, question: dict[str, Any]) -> Answer:
    try:
        said = _asked(process.socket, {**question, **({"key": process.key} if process.key else {})})
    except TimeoutError:
        said = {"error": _TOO_LATE.format(_PATIENCE_S)}
    except (OSError, ValueError) as error:
        said = {"error": f"cannot be asked ({error})"}
    return Answer(process.pid, said)


def _asked(path: Path, question: dict[str, Any]) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(_PATIENCE_S)
        asking.connect(str(path))
        if not is_same_user(asking):  # a note says where it is: anyone may have written that
            raise OSError(f"{path} is another user's")
        asking.sendall(json.dumps(question).encode() + b"\n")
        said: dict[str, Any] = json.loads(_line(asking) or b'{"error": "no answer"}')
        return said


def _line(asking: socket.socket) -> bytes:
    """Raises TimeoutError where there is none in time: it finds nobody then, and who answers knows that it was not heard."""
    with asking.makefile("rb") as answer:
        try:
            return answer.readline()
        except TimeoutError:
            asking.shutdown(socket.SHUT_RDWR)
    late = asking.recv(_LONGEST)  # between the two
    if not late:
        raise TimeoutError
    return late
