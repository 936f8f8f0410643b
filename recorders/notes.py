"""Read the notes that recorded processes leave about attaching, and explain missing recordings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .file_names import NOTE
from .ranks import Rank
from .run_manifest import SchedulerEntry

_NEVER_LOADED = (
    "no process loaded sglang's scheduler with the recorder in it. Either the command ended before it started sglang, or it "
    "never starts sglang, or its Python ignores PYTHONPATH and sitecustomize (-I, -E, -S, or a cleared environment)"
)


@dataclass(frozen=True, slots=True)
class Note:
    """One process that loaded sglang's scheduler module with the recorder in it (see `capture.note_writer`).

    A note's file has one JSON object per line. On a full disk a line may be torn or missing. The line
    that identifies the process appears twice if the server closed the file and the process opened
    it again. The line that names the control socket has a pid, too.
    """

    pid: int
    sglang_version: str
    missing: dict[str, list[str]]  # essential role -> the places where it was looked for
    num_schedulers: int
    # Reasons, one per scheduler that should have a journal but has none.
    not_recorded: tuple[str, ...]
    # Those with a known place in the run, and those that failed.
    schedulers: tuple[SchedulerEntry, ...]
    # Of all its recordings. `--attach ... start` can begin some in other folders.
    journals: tuple[Path, ...]
    socket: Path | None  # its control socket
    key: str | None  # sent with each request to the socket: only this process accepts it


_NO_SOCKET = "it could not open its control socket, so nobody could start a recording; the server's log says why"
_SAID_NOTHING = (
    "sglang's scheduler module was loaded (process {pids}), but it could not write into the folder; "
    "the server's log says why"
)


def read_notes(paths: Sequence[Path]) -> list[Note]:
    return [note for path in paths if (note := _read(path)) is not None]


def why_nothing(notes: Sequence[Note], paths: Sequence[Path] = ()) -> list[str]:
    """Return sentences that explain what was not recorded; empty if every scheduler has a journal.

    `paths` are the files of the notes. On a full disk, a note's file can be empty or torn, so there
    can be paths but no `notes`.
    """
    if not notes and paths:
        names = (path.name.removesuffix(NOTE) for path in paths)
        silent = (name.rpartition("-")[2].partition(".")[0] for name in names)
        return [_SAID_NOTHING.format(pids=", ".join(silent))]
    if not notes:
        return [_NEVER_LOADED]
    if missing := sorted({sentence for note in notes for sentence in _missing(note)}):
        return missing
    if not any(note.num_schedulers for note in notes):
        pids = ", ".join(str(note.pid) for note in notes)
        return [f"sglang's scheduler module was loaded (process {pids}), but no Scheduler was made"]
    return [f"process {note.pid}: {why}" for note in notes for why in note.not_recorded]


def left_out(notes: Sequence[Note]) -> list[str]:
    """Return a sentence for each scheduler that was not recorded on purpose."""
    every = [(note.pid, one) for note in notes for one in note.schedulers if one.left_out]
    return [f"process {pid}: {one.why}" for pid, one in every]


def _missing(note: Note) -> Iterator[str]:
    for role, places in note.missing.items():
        yield (
            f"sglang {note.sglang_version} has no site for {role!r}, which every recording needs "
            f"(looked for it at {', '.join(places)}). Nothing was recorded"
        )


def _read(path: Path) -> Note | None:
    """Read a note. Return None if it cannot be read or if the process died before it wrote a line."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return None
    records = [record for line in lines if (record := _record(line)) is not None]
    process = next((line for line in records if "sglang_version" in line), None)
    if process is None:
        return None
    constructed = [line for line in records if line.get("constructed")]
    sockets = [(Path(line["socket"]), line.get("key")) for line in records if line.get("socket")]
    socket, key = sockets[-1] if sockets else (None, None)
    return Note(
        pid=process["pid"],
        sglang_version=process["sglang_version"],
        missing=process["missing"],
        num_schedulers=sum("pid" not in line for line in records),
        not_recorded=tuple(
            [line["why"] for line in constructed if line.get("why")]
            + [_detached(line) for line in constructed if line.get("detached")]
            + [_failed(line) for line in records if "failed" in line]
            + [_NO_SOCKET for line in constructed if line.get("paused") and not sockets]
        ),
        schedulers=tuple(_schedulers(process["pid"], records)),
        journals=tuple(
            Path(line["folder"], line["journal"]) for line in constructed if line.get("folder")
        ),
        socket=socket,
        key=key,
    )


def _record(line: bytes) -> dict[str, Any] | None:
    """Read a line of a note. Return None if a full disk cut it short."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _detached(line: dict[str, Any]) -> str:
    return f"sites lost after attaching: {', '.join(line['detached'])}"


def _failed(line: dict[str, Any]) -> str:
    return f"the recorder could not start ({line['failed']})"


def _schedulers(pid: int, lines: Sequence[dict[str, Any]]) -> Iterator[SchedulerEntry]:
    for line in lines:
        rank = Rank(**line["rank"]) if line.get("rank") else None
        if line.get("journal"):
            yield SchedulerEntry(pid, rank, line["journal"], left_out=False, why=None)
        elif line.get("left_out"):
            yield SchedulerEntry(pid, rank, None, left_out=True, why=line["left_out"])
        elif line.get("why"):
            yield SchedulerEntry(pid, rank, None, left_out=False, why=line["why"])
        elif "detached" in line or "failed" in line:
            why = _failed(line) if "failed" in line else _detached(line)
            yield SchedulerEntry(pid, rank, None, left_out=False, why=why)
