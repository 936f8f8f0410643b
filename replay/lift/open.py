"""Open a path spec as a program, using the cache."""

from __future__ import annotations

import importlib.util
from contextlib import closing, suppress
from pathlib import Path

from ...recorders.errors import NoVerdictError, UsageError
from ..spec import Lifted, Origin
from . import cache, wheels
from .git import CatFile, GitSource, commit_of
from .lifting import lift
from .link import Program
from .source import open_dir, open_wheel
from .surface import Surface


def program_of(path: Lifted) -> Program:
    """Return a path's program.

    Raises UsageError if it does not exist, NoVerdictError if it is not available or too old.
    """
    return Program(surface_of(path))


def surface_of(path: Lifted) -> Surface:
    """Return what a path lifts, from the cache if possible. Raises as `books_of` does."""
    if path.origin is Origin.RELEASE:
        return _release(path.where)
    if path.origin is Origin.REVISION:
        return _revision(path)
    if path.origin is Origin.INSTALLED:
        return lift(open_dir(_installed(), "sglang@installed"))
    return lift(open_dir(Path(path.where)))


def kept(path: Lifted) -> Surface | None:
    """Return the path's surface from the cache; None if it must still be fetched or lifted, or cannot be."""
    if path.origin is Origin.RELEASE:
        wheel = wheels.found(path.where)
        return None if wheel is None else _kept_release(path.where, wheel)
    if path.origin is Origin.REVISION:
        with suppress(UsageError, NoVerdictError):
            return cache.load(f"commit-{commit_of(Path(path.repo or '.'), path.where)}")
    return None


def _kept_release(version: str, wheel: Path) -> Surface | None:
    known = wheels.recorded_hash(wheel)
    return None if known is None else cache.load(f"{version}-{known[:16]}")


def _release(version: str) -> Surface:
    wheel = wheels.wheel_of(version)
    if (surface := _kept_release(version, wheel)) is not None:
        return surface
    digest = wheels.verified_hash(wheel)
    source = open_wheel(wheel, f"sglang {version}")
    with source.wheel:
        surface = lift(source)
    cache.save(f"{version}-{digest[:16]}", surface)
    return surface


def _revision(path: Lifted) -> Surface:
    repo = Path(path.repo or ".")
    commit = commit_of(repo, path.where)
    if (surface := cache.load(f"commit-{commit}")) is not None:
        return surface
    with closing(CatFile(repo)) as files:
        surface = lift(GitSource(f"sglang@{commit[:12]}", commit, files))
    cache.save(f"commit-{commit}", surface)
    return surface


def _installed() -> Path:
    found = importlib.util.find_spec("sglang")
    folders = found.submodule_search_locations if found else None
    if not folders:
        raise UsageError("path 'sglang@installed': no sglang is installed in this environment.")
    return Path(next(iter(folders)))
