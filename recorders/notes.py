"""What the recorded processes said about attaching, and what that means for someone who got no recording."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .manifest import Scheduler
from .names import NOTE
from .ranks import Rank

_NEVER_LOADED = (
    "no process loaded sglang's scheduler with the recorder in it. The command ended before it started sglang, never starts it, "
    "or its Python ignores PYTHONPATH and sitecustomize (-I, -E, -S, or a cleared environment)"
)


@dataclass(frozen=True, slots=True)
class Note:
    """One process that loaded sglang's scheduler module with the recorder in it (see `capture.session`).

    Who opened its note anew, as the server had closed it, says twice who it is; who listens says so with his number, too.
    """

    pid: int
    sglang_version: str
    missing: dict[str, list[str]]  # essential role -> the places that were looked at
    num_schedulers: int
    not_recorded: tuple[str, ...]  # why, per scheduler that has no journal and should have one
    schedulers: tuple[Scheduler, ...]  # those whose place in the run is known, or that have failed
    journals: tuple[Path, ...]  # of all its recordings: `--attach ... start` begins some elsewhere
    socket: Path | None  # where it can be asked
    key: str | None  # which it is asked with: only this process answers to it


_SAID_NOTHING = (
    "sglang's scheduler module was loaded (process {pids}), but it could not write into the folder; "
    "the server's log says why"
)


def read_notes(paths: Sequence[Path]) -> list[Note]:
    return [note for path in paths if (note := _read(path)) is not None]


def why_nothing(notes: Sequence[Note], paths: Sequence[Path] = ()) -> list[str]:
    """What went unrecorded, in sentences; empty where every scheduler has a journal.

    `paths`: the notes' files, of which those say nothing that were written on a full disk.
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
    """Who was not recorded on purpose, in sentences."""
    every = [(note.pid, one) for note in notes for one in note.schedulers if one.left_out]
    return [f"process {pid}: {one.why}" for pid, one in every]


def _missing(note: Note) -> Iterator[str]:
    for role, places in note.missing.items():
        yield (
            f"sglang {note.sglang_version} has no site for {role!r}, which every recording needs; "
            f"looked at {', '.join(places)}. Nothing was recorded"
        )


def _read(path: Path) -> Note | None:
    """None where it cannot be read, or the process died before it had said anything."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    try:
        said = [json.loads(line) for line in lines if line.endswith("}")]
    except ValueError:  # torn by a disk that was full
        return None
    if not said or "sglang_version" not in said[0]:
        return None
    made = [line for line in said[1:] if line.get("constructed")]
    sockets = [(Path(line["socket"]), line.get("key")) for line in said if line.get("socket")]
    socket, key = sockets[-1] if sockets else (None, None)
    return Note(
        pid=said[0]["pid"],
        sglang_version=said[0]["sglang_version"],
        missing=said[0]["missing"],
        num_schedulers=sum("pid" not in line for line in said),
        not_recorded=tuple(
            [line["why"] for line in made if line.get("why")]
            + [_detached(line) for line in made if line.get("detached")]
            + [_failed(line) for line in said[1:] if "failed" in line]
        ),
        schedulers=tuple(_schedulers(said[0]["pid"], said[1:])),
        journals=tuple(
            Path(line["folder"], line["journal"]) for line in made if line.get("folder")
        ),
        socket=socket,
        key=key,
    )


def _detached(line: dict[str, Any]) -> str:
    return f"sites lost after attaching: {', '.join(line['detached'])}"


def _failed(line: dict[str, Any]) -> str:
    return f"the recorder could not start ({line['failed']})"


def _schedulers(pid: int, lines: Sequence[dict[str, Any]]) -> Iterator[Scheduler]:
    for line in lines:
        rank = Rank(**line["rank"]) if line.get("rank") else None
        if line.get("journal"):
            yield Scheduler(pid, rank, line["journal"], left_out=False, why=None)
        elif line.get("left_out"):
            yield Scheduler(pid, rank, None, left_out=True, why=line["left_out"])
        elif line.get("why"):
            yield Scheduler(pid, rank, None, left_out=False, why=line["why"])
        elif "detached" in line or "failed" in line:
            why = _failed(line) if "failed" in line else _detached(line)
            yield Scheduler(pid, rank, None, left_out=False, why=why)
