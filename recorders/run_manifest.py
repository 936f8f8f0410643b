"""The manifest of a run: which schedulers a host had, and why some of them have no recording.

A run is the set of recordings with one `run_id`. Which ranks it should have follows from the sizes
stored in each recording. What the recordings cannot say is in `<run_id>.<host>.run.json` beside
them, one file per host, made from the notes that the processes left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import RecordingError
from .ranks import Rank

MANIFEST = ".run.json"
FORMAT = "specdiff-run"
VERSION = 1


@dataclass(frozen=True, slots=True)
class SchedulerEntry:
    """One scheduler of a run."""

    pid: int
    rank: Rank | None  # None: unknown, because the scheduler failed too early
    journal: str | None
    left_out: bool  # not recorded on purpose: another scheduler keeps the same books
    why: str | None  # why it has no journal; None if it has one


@dataclass(frozen=True, slots=True)
class RunManifest:
    """The schedulers of a run on one host."""

    run_id: str
    host: str
    schedulers: tuple[SchedulerEntry, ...]


def write(directory: Path, run_id: str, schedulers: Iterable[SchedulerEntry]) -> Path | None:
    """Write the manifest of this host, adding to the one that exists, and return its path.

    Return None and write nothing if there is only one scheduler and its server has no other.

    Raises OSError if the manifest cannot be written.
    """
    host = platform.node() or "unknown"
    path = directory / f"{run_id}.{re.sub(r'[^A-Za-z0-9_-]', '_', host)}{MANIFEST}"
    known: tuple[SchedulerEntry, ...] = ()
    with contextlib.suppress(RecordingError, FileNotFoundError):  # a damaged one is replaced
        known = read(path).schedulers
    every = tuple(dict.fromkeys((*known, *schedulers)))
    if len(every) < 2 and all(one.rank is None or one.rank.alone for one in every):
        return None
    content = {
        "format": FORMAT,
        "version": VERSION,
        "run_id": run_id,
        "host": host,
        "schedulers": [dataclasses.asdict(one) for one in every],
    }
    handle, scratch = tempfile.mkstemp(dir=directory, suffix=".tmp")
    try:
        with os.fdopen(handle, "w") as out:
            json.dump(content, out, indent=1)
            out.write("\n")
        Path(scratch).chmod(0o644)
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
    return path


def manifests(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"*{MANIFEST}"))


def read(path: Path) -> RunManifest:
    """Read a manifest. Raises FileNotFoundError, and RecordingError if it is not a valid manifest."""
    try:
        raw = json.loads(path.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise RecordingError(f"{path}: not JSON ({error}). Delete it, or copy it again") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise RecordingError(f"{path}: not the manifest of a run: its format is not {FORMAT!r}")
    if raw.get("version") != VERSION:
        raise RecordingError(
            f"{path}: version {raw.get('version')!r} of {FORMAT}; this specdiff reads {VERSION}"
        )
    try:
        return RunManifest(
            str(raw["run_id"]), str(raw["host"]), tuple(map(_scheduler, raw["schedulers"]))
        )
    except (KeyError, TypeError) as error:
        raise RecordingError(f"{path}: damaged ({error!r}). Delete it, or copy it again") from error


def _scheduler(raw: dict[str, Any]) -> SchedulerEntry:
    rank = raw.pop("rank")
    return SchedulerEntry(rank=rank and Rank(**rank), **raw)
