"""Recordings named on a command line: files, folders of them, or the bundled ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..recorders.errors import RecordingError


def bundled() -> Path:
    return Path(__file__).resolve().parent.parent / "fixtures" / "recordings"


def recordings(names: Sequence[str]) -> list[Path]:
    """The files behind `names`, folders expanded; none named means the bundled ones."""
    found: list[Path] = []
    for path in [Path(name) for name in names] or [bundled()]:
        found.extend(_folder(path) if path.is_dir() else [path])
    return found


def _folder(path: Path) -> list[Path]:
    found = sorted(path.glob("*.h5"))
    if found:
        return found
    journals = len(list(path.glob("*.journal")))
    remedy = (
        f"It holds {journals} journals: run `specdiff recover {path}`."
        if journals
        else "Name a folder that `specdiff record -o` wrote into, or a recording."
    )
    raise RecordingError(f"{path}: a folder without recordings (*.h5). {remedy}")
