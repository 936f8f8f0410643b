"""What a run's recordings cannot say themselves: which schedulers there were on a host, and who was left out, and why.

A run is all recordings of one `run_id`; who should be there follows from the sizes that each of them states. The rest lies
beside them in `<run_id>.<host>.run.json`, one file a host, made from the notes that the processes left behind.
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
class Scheduler:
    """One scheduler as it came to be; `why`: it has no journal because of that (None where it has one)."""

    pid: int
    rank: Rank | None  # None: not known, as it never came so far
    journal: str | None
    left_out: bool  # on purpose: another keeps the same books
    why: str | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """The schedulers of a run on one host."""

    run_id: str
    host: str
    schedulers: tuple[Scheduler, ...]


def write(directory: Path, run_id: str, schedulers: Iterable[Scheduler]) -> Path | None:
    """Put the manifest of this host in place, added to what is there already; None where nothing needs to be tied.

    Raises OSError where it cannot be written.
    """
    host = platform.node() or "unknown"
    path = directory / f"{run_id}.{re.sub(r'[^A-Za-z0-9_-]', '_', host)}{MANIFEST}"
    known: tuple[Scheduler, ...] = ()
    with contextlib.suppress(RecordingError, FileNotFoundError):  # one that is torn is made anew
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


def read(path: Path) -> Manifest:
    """Raises RecordingError naming what is wrong, and FileNotFoundError."""
    try:
        raw = json.loads(path.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise RecordingError(f"{path}: not JSON ({error}); delete it, or fetch it anew") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise RecordingError(f"{path}: not the manifest of a run; its format is not {FORMAT!r}")
    if raw.get("version") != VERSION:
        raise RecordingError(
            f"{path}: version {raw.get('version')!r} of {FORMAT}; this specdiff reads {VERSION}"
        )
    try:
        return Manifest(
            str(raw["run_id"]), str(raw["host"]), tuple(map(_scheduler, raw["schedulers"]))
        )
    except (KeyError, TypeError) as error:
        raise RecordingError(f"{path}: damaged ({error!r}); delete it, or fetch it anew") from error


def _scheduler(raw: dict[str, Any]) -> Scheduler:
    rank = raw.pop("rank")
    return Scheduler(rank=rank and Rank(**rank), **raw)
