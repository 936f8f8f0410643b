"""Which processes can be asked, and where: their sockets may lie in folders that this shell's variables do not name."""

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
    "{looked} was expected to have the recorder in it, and has not: no socket of it is in {searched}. A server whose "
    f"{RUNTIME}, XDG_RUNTIME_DIR or TMPDIR is not this shell's has it in its own: set {RUNTIME} to that folder, or name the "
    "DIR that it was started with. Else start the server with `specdiff record --paused -o DIR -- COMMAND` (or without "
    "--paused), as the same user"
)


def processes(target: str) -> list[Process]:
    """The processes with a recorder in them: those of a run's or a recording's folder, or a process and those it started.

    Raises UsageError where there is none, saying what was looked for, and where.
    """
    searched = _searched(int(target) if target.isdecimal() else None)
    askable = [process for folder in searched for process in _listening_in(folder)]
    if target.isdecimal():
        found = [process for process in askable if int(target) in _ancestry(process.pid)]
        looked = f"process {target}, or one that it started,"
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
    # the notes of a run lie where it began; `start -o` may have sent its recording elsewhere
    return [process for note in alive for process in _noted(note, askable)] or [
        process for process in askable if _records_into(process, folder)
    ]


def _noted(note: Note, askable: list[Process]) -> list[Process]:
    """Its own word goes first: of another container's process, a number says little."""
    if note.socket is None:
        return []  # of two with one number the second has none: the first is not asked in its place
    if _is_open(note.socket):
        return [Process(note.pid, note.socket, note.key)]
    return [replace(process, key=note.key) for process in askable if process.pid == note.pid]


def _records_into(process: Process, folder: Path) -> bool:
    """By its own word: now, or last."""
    journal = ask(process, {"do": "status"}).journal
    with contextlib.suppress(OSError):  # a folder that is gone, or another container's
        return journal is not None and journal.parent.samefile(folder)
    return False


def _searched(pid: int | None) -> list[Path]:
    """This user's folders of sockets: as this shell has them, and as process `pid` was started with."""
    try:
        own = runtime_folder()
    except OSError as error:
        raise UsageError(str(error)) from error
    more = folders(os.environ) + ([] if pid is None else _folders_of(pid))
    return [own, *(folder for folder in dict.fromkeys(more) if folder != own and _is_ours(folder))]


def _folders_of(pid: int) -> list[Path]:
    """None where it is gone, or another user's."""
    try:
        told = Path("/proc", str(pid), "environ").read_bytes()
    except OSError:
        return []
    pairs = (entry.partition("=") for entry in os.fsdecode(told).split("\0"))
    return folders({name: value for name, _, value in pairs})


def _is_ours(folder: Path) -> bool:
    try:
        must_be_ours(folder)
    except OSError:
        return False
    return True


def _listening_in(folder: Path) -> list[Process]:
    """The processes that can be asked. Sockets where nobody listens go: a SIGKILL leaves them behind, and their number may be
    another's by now. Who is not to be seen is not dead for that, but in another PID namespace (of a container)."""
    paths = [path for path in _listed(folder) if path.stem.isdecimal() and path.is_socket()]
    for path in paths:
        if is_dead(path):  # whoever comes in between is there again: `capture.control_socket`
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
    """`pid`, its parent, and so on; nothing where it is gone."""
    while pid > 0:
        try:
            stat = (Path("/proc") / str(pid) / "stat").read_text()
        except OSError:
            return
        yield pid
        pid = int(stat.rpartition(")")[2].split()[1])
