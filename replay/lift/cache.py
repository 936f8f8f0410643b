"""The cache folder, and surfaces kept in it: a release or a commit is lifted once."""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import cache
from pathlib import Path

from .surface import Surface, from_json, to_json

# What decides how a source is lifted: a surface made by another specdiff is made anew.
_LIFTER = (
    "excerpt.py",
    "lifting.py",
    "module.py",
    "names.py",
    "roles.py",
    "strip.py",
    "surface.py",
    "bases.py",
    "reading.py",
    "writers.py",
    "arguments.py",
    "scan.py",
)
_STAND_INS = ("batch.py", "request.py", "scheduler.py", "session.py")


def cache_root() -> Path:
    """$SPECDIFF_CACHE, else $XDG_CACHE_HOME/specdiff, else ~/.cache/specdiff."""
    if given := os.environ.get("SPECDIFF_CACHE"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "specdiff"


def kept(key: str) -> Path:
    """Where the surface of this key is kept."""
    return cache_root() / "lifted" / f"{key}-{_lifter()}.json"


def load(key: str) -> Surface | None:
    """None where it was never saved; a file that cannot be read is as good as none, and is written anew."""
    try:
        return from_json(kept(key).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(key: str, surface: Surface) -> None:
    write(kept(key), to_json(surface))


def write(target: Path, text: str) -> None:
    """Whole or not at all. Best effort: a cache that cannot be written costs time, nothing else."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=target.parent, suffix=".part", delete=False
        ) as part:
            part.write(text)
        os.replace(part.name, target)
    except OSError:
        return


def entries() -> list[tuple[str, Surface]]:
    """(key, surface) of everything kept that this specdiff wrote."""
    ending = f"-{_lifter()}.json"
    paths = sorted((cache_root() / "lifted").glob(f"*{ending}"))
    found = ((path.name[: -len(ending)], load(path.name[: -len(ending)])) for path in paths)
    return [(key, surface) for key, surface in found if surface is not None]


@cache
def _lifter() -> str:
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for name in (*_LIFTER, *_STAND_INS):
        digest.update((here / name).read_bytes())
    return digest.hexdigest()[:8]
