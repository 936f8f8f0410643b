"""Asking recorders that are at work in other processes: who they are, and what they answer."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UsageError
from .notes import read_notes
from .recover import is_locked, notes
from .runtime import is_dead, runtime_folder, socket_of

_PATIENCE_S = 15.0  # longer than the recorder's own for its disk
_LONGEST = 1 << 16  # bytes of an answer
_TOO_LATE = "cannot be asked (no answer within {:.0f} s). It does nothing of this later but what it has begun by now: ask for its status"


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


def processes(target: str) -> list[int]:
    """The processes with a recorder in them: those of a run's or a recording's folder, or a process and those it started.

    Raises UsageError where there is none, saying what was looked for.
    """
    doors = _doors()
    if target.isdecimal():
        found = [pid for pid in doors if int(target) in _ancestry(pid)]
        looked = f"process {target}, or one that it started,"
    else:
        folder = Path(target)
        if not folder.is_dir():
            raise UsageError(f"{target}: neither a process number nor a folder")
        paths = [path for path in notes(folder) if is_locked(path)]
        noted = {note.pid for note in read_notes(paths)}
        # the notes of a run lie where it began; `start -o` may have sent its recording elsewhere
        found = [pid for pid in doors if pid in noted] or [
            pid for pid in doors if _records_into(pid, folder)
        ]
        looked = f"a running process that records into {target}"
    if not found:
        raise UsageError(
            f"{looked} was expected to have the recorder in it, and has not. Start the server with `specdiff record "
            "--paused -o DIR -- COMMAND` (or without --paused), as the same user"
        )
    return found


def _records_into(pid: int, folder: Path) -> bool:
    """By its own word: now, or last."""
    journal = ask(pid, {"do": "status"}).journal
    with contextlib.suppress(OSError):  # a folder that is gone, or another container's
        return journal is not None and journal.parent.samefile(folder)
    return False


def ask(pid: int, question: dict[str, Any]) -> Answer:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(_PATIENCE_S)
            asking.connect(str(socket_of(pid)))
            asking.sendall(json.dumps(question).encode() + b"\n")
            return Answer(pid, json.loads(_line(asking) or b'{"error": "no answer"}'))
    except TimeoutError:
        return Answer(pid, {"error": _TOO_LATE.format(_PATIENCE_S)})
    except (OSError, ValueError) as error:
        return Answer(pid, {"error": f"cannot be asked ({error})"})


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


def _doors() -> list[int]:
    """The processes that can be asked. Sockets where nobody listens go: a SIGKILL leaves them behind, and their number may be
    another's by now. Who is not to be seen is not dead for that, but in another PID namespace (of a container)."""
    try:
        paths = [path for path in runtime_folder().glob("*.sock") if path.stem.isdecimal()]
    except OSError as error:
        raise UsageError(str(error)) from error
    for path in paths:
        if path.is_socket() and is_dead(path):  # whoever comes in between is there again: `Door`
            path.unlink(missing_ok=True)
    return sorted(int(path.stem) for path in paths if path.is_socket())


def _ancestry(pid: int) -> Iterator[int]:
    """`pid`, its parent, and so on; nothing where it is gone."""
    while pid > 0:
        try:
            stat = (Path("/proc") / str(pid) / "stat").read_text()
        except OSError:
            return
        yield pid
        pid = int(stat.rpartition(")")[2].split()[1])
