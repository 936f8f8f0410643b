"""Find the processes with a recorder in them, and their control sockets.

The sockets may be in folders that this shell's environment variables do not name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from .errors import UsageError
from .notes import Note, read_notes
from .recover import is_locked, notes
from .remote import Process, ask
from .runtime import RUNTIME, folders, is_dead, must_be_ours, runtime_folder

_NOBODY = (
    "no recorder found: looked for the control socket of {looked} in {searched}. If the server's "
    f"{RUNTIME}, XDG_RUNTIME_DIR or TMPDIR differs from this shell's, set {RUNTIME} to the folder of its sockets, or name "
    "the DIR that it was started with. If it runs without the recorder, start it with `specdiff record --paused -o DIR "
    "-- COMMAND` (or without --paused), as the same user"
)

_NOT_YET = (
    "no recorder found yet: process {pid} of a server that records into {folder} is running, but without a scheduler. The "
    "server may still be loading its model. Try again when the server is ready"
)


def processes(target: str) -> list[Process]:
    """Return the processes with a recorder in them that belong to `target`.

    `target` is a process number (that process and its descendants), or the folder of a run or of
    a recording.

    Raises UsageError if there is none; it names what was searched for and where.
    """
    searched = _searched(int(target) if target.isdecimal() else None)
    askable = [process for folder in searched for process in _listening_in(folder)]
    if target.isdecimal():
        found = [process for process in askable if int(target) in _ancestry(process.pid)]
        looked = f"process {target} or of a process that it started"
    else:
        found = _of_folder(Path(target), askable)
        looked = f"a running process that records into {target}"
    if not found:
        where = " or ".join(map(str, searched))
        raise UsageError(_NOBODY.format(looked=looked, searched=where))
    return sorted(set(found))


def _of_folder(folder: Path, askable: list[Process]) -> list[Process]:
    if not folder.is_dir():
        raise UsageError(f"{folder}: neither a process number nor a folder")
    alive = read_notes([path for path in notes(folder) if is_locked(path)])
    # The notes of a run are in the folder that it began with, but `start -o` may have sent its
    # recording elsewhere. So if no note helps, ask every process where it records to.
    found = [process for note in alive for process in _noted(note, askable)] or [
        process for process in askable if _records_into(process, folder)
    ]
    if not found and alive and not any(note.num_schedulers for note in alive):
        raise UsageError(_NOT_YET.format(pid=alive[0].pid, folder=folder))
    return found


def _noted(note: Note, askable: list[Process]) -> list[Process]:
    """Return the process that wrote a note.

    The socket that the note names comes first: a pid alone is ambiguous across containers.
    """
    if note.socket is None:
        # Two processes (in two containers) can have the same pid. The second one to start gets no
        # socket, and the first must not be asked in its place.
        return []
    if _is_open(note.socket):
        return [Process(note.pid, note.socket, note.key)]
    return [replace(process, key=note.key) for process in askable if process.pid == note.pid]


def _records_into(process: Process, folder: Path) -> bool:
    """Whether a process says that it records into `folder`, now or in its last recording."""
    journal = ask(process, {"do": "status"}).journal
    with contextlib.suppress(OSError):  # the folder is gone, or in another container
        return journal is not None and journal.parent.samefile(folder)
    return False


def _searched(pid: int | None) -> list[Path]:
    """Return this user's socket folders, by this shell's environment and by that of process `pid`."""
    try:
        own = runtime_folder()
    except OSError as error:
        raise UsageError(str(error)) from error
    more = folders(os.environ) + ([] if pid is None else _folders_of(pid))
    return [own, *(folder for folder in dict.fromkeys(more) if folder != own and _is_ours(folder))]


def _folders_of(pid: int) -> list[Path]:
    """Return the socket folders of a process, by its environment.

    The list is empty if the process is gone or belongs to another user.
    """
    try:
        environ = Path("/proc", str(pid), "environ").read_bytes()
    except OSError:
        return []
    pairs = (entry.partition("=") for entry in os.fsdecode(environ).split("\0"))
    return folders({name: value for name, _, value in pairs})


def _is_ours(folder: Path) -> bool:
    try:
        must_be_ours(folder)
    except OSError:
        return False
    return True


def _listening_in(folder: Path) -> list[Process]:
    """Return the processes with a control socket in `folder`, and delete dead sockets.

    A SIGKILL leaves a socket behind, and its pid may belong to another process by now. Whether a
    socket is dead is tested by connecting to it, not by looking up the pid: a live process can be
    invisible because it is in the PID namespace of a container.
    """
    paths = [path for path in _listed(folder) if path.stem.isdecimal() and path.is_socket()]
    for path in paths:
        # A process that binds this path between the test and the unlink notices that its socket
        # is gone and binds again (see `capture.control_socket`).
        if is_dead(path):
            path.unlink(missing_ok=True)
    return [Process(int(path.stem), path) for path in paths if path.is_socket()]


def _listed(folder: Path) -> Iterable[Path]:
    try:
        return list(folder.glob("*.sock"))
    except OSError as error:
        raise UsageError(str(error)) from error


def _is_open(path: Path) -> bool:
    try:
        return path.is_socket() and not is_dead(path)
    except OSError:
        return False


def _ancestry(pid: int) -> Iterator[int]:
    """Yield `pid`, its parent, and so on; nothing if `pid` is gone."""
    while pid > 0:
        try:
            stat = (Path("/proc") / str(pid) / "stat").read_text()
        except OSError:
            return
        yield pid
        pid = int(stat.rpartition(")")[2].split()[1])
