"""The cache folder and the surfaces in it, so that a release or commit is lifted only once."""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import cache
from pathlib import Path

from .surface import Surface, from_json, to_json

# Files that decide how a source is lifted. If they change, surfaces are lifted again.
_LIFTER = (
    "excerpt.py",
    "lifting.py",
    "module.py",
    "allowed_names.py",
    "roles.py",
    "strip.py",
    "surface.py",
    "ast_reading.py",
    "writers.py",
    "arguments.py",
    "scan.py",
)
_STAND_INS = ("batch.py", "class_map.py", "request.py", "scheduler.py", "session.py")


def cache_root() -> Path:
    """$SPECDIFF_CACHE, else $XDG_CACHE_HOME/specdiff, else ~/.cache/specdiff."""
    if given := os.environ.get("SPECDIFF_CACHE"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "specdiff"


def kept(key: str) -> Path:
    """Return where the surface with this key is stored."""
    return cache_root() / "lifted" / f"{key}-{_lifter()}.json"


def load(key: str) -> Surface | None:
    """Load a surface; None if it was never saved or cannot be read.

    The caller then lifts it again and saves it.
    """
    try:
        return from_json(kept(key).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(key: str, surface: Surface) -> None:
    write(kept(key), to_json(surface))


def write(target: Path, text: str) -> None:
    """Write the file completely or not at all.

    Errors are ignored: without a cache, specdiff only takes longer.
    """
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
    """Return (key, surface) for everything in the cache that this version of specdiff wrote."""
    ending = f"-{_lifter()}.json"
    paths = sorted((cache_root() / "lifted").glob(f"*{ending}"))
    found = ((path.name[: -len(ending)], load(path.name[: -len(ending)])) for path in paths)
    return [(key, surface) for key, surface in found if surface is not None]


@cache
def _lifter() -> str:
    """Return a short hash of the files that decide how a source is lifted."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for name in (*_LIFTER, *(f"standins/{name}" for name in _STAND_INS)):
        digest.update((here / name).read_bytes())
    return digest.hexdigest()[:8]
