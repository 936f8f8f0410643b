"""The file names of journals, notes and recordings (standard library only).

The name of a journal and of its recording can be derived from each other.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from .run import Run

JOURNAL = ".journal"
NOTE = ".attach.json"
_RANKS = r"(-(dp|tp|pp)\d+)*"


def journal_name(run_id: str, pid: int, number: int) -> str:
    return f"{run_id}-{pid}-{number}{JOURNAL}"


def note_name(run_id: str, pid: int, number: int) -> str:
    return f"{run_id}-{pid}{f'.{number}' if number else ''}{NOTE}"


def is_journal(path: Path) -> bool:
    """Whether this is a journal. A ring's is a folder of segments; any other folder may have such a name."""
    if not path.name.endswith(JOURNAL):
        return False
    return any(path.glob("*.segment")) if path.is_dir() else path.is_file()


def pid_of(name: str, run_id: str) -> str | None:
    """Return the pid in the name of a journal, of a kept copy of one, or of a note.

    Return None if the name does not belong to this run.
    """
    found = re.fullmatch(
        rf"{re.escape(run_id)}-(\d+)(-\d+(\.\d+)?{re.escape(JOURNAL)}.*|(\.\d+)?{re.escape(NOTE)})",
        name,
    )
    return found and found[1]


def next_number(folder: Path, run_id: str, pid: int, least: int) -> int:
    """Return the first free journal number: `least`, or the one after the highest number in use.

    A number is in use if `folder` has its journal, a kept copy of that, or its recording. This
    matters because a restarted container has the same pids again, and may have the same run id.

    Raises OSError.
    """
    journal, recording = re.escape(f"{run_id}-{pid}"), re.escape(_of(run_id, pid))
    name = re.compile(rf"(?:{journal}-(\d+)\..*|.*{recording}-(\d+)[.-].*)")
    found = filter(None, (name.fullmatch(one) for one in os.listdir(folder)))
    return max([least, *(int(one[1] or one[2]) + 1 for one in found)])


def recording_name(run: Run, journal: Path) -> str:
    """Return `<UTC start>-<sglang>-<run>-pid<pid>-<n>[-dp0][-tp1][-pp0].h5`.

    Names sort by time. `<run>`, the end of the run id, keeps recordings of several hosts apart.
    """
    started = re.sub(r"[^0-9T]", "", run.started.split(".")[0].split("+")[0]).replace("T", "-")
    version = re.sub(r"[^A-Za-z0-9.+_-]", "_", run.sglang_version)
    number = journal.name.removesuffix(JOURNAL).rpartition("-")[2]
    ranks = [
        f"-{what}{rank}"
        for what, rank, size in (
            ("dp", run.dp_rank, run.dp_size),
            ("tp", run.tp_rank, run.tp_size),
            ("pp", run.pp_rank, run.pp_size),
        )
        if rank is not None and size > 1
    ]
    return f"{started}-{version}{_of(run.run_id, run.pid)}-{number}{''.join(ranks)}.h5"


def recordings_of(journal: Path) -> list[Path]:
    """Return the files beside a journal with the name of its recording, latest first. Raises OSError."""
    run_id, pid, number = _parts(journal.name)
    name = re.compile(f".*{re.escape(f'{_of(run_id, pid)}-{number}')}{_RANKS}\\.h5")
    return sorted(
        (one for one in journal.parent.iterdir() if name.fullmatch(one.name)), reverse=True
    )


def run_and_pid_of(journal: Path) -> tuple[str, str]:
    """Return the run id and the pid in a journal's name."""
    return _parts(journal.name)[:2]


def _parts(name: str) -> tuple[str, str, str]:
    process, _, number = name.removesuffix(JOURNAL).rpartition("-")
    run_id, _, pid = process.rpartition("-")
    return run_id, pid, number


def _of(run_id: str, pid: int | str) -> str:
    return f"-{re.sub(r'[^A-Za-z0-9]', '_', run_id.rpartition('-')[2])}-pid{pid}"
