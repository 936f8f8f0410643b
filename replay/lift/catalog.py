"""The content of `specdiff paths`: the cached releases with their books, and where one path's roles were found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...recorders.errors import RecordingError, SpecdiffError
from ..spec import Lifted, Origin
from . import wheels
from .link import Program
from .matches import Match, Matches
from .open import surface_of
from .roles import Role
from .surface import Surface

if TYPE_CHECKING:
    from ..columns.shared import Columns


@dataclass(frozen=True, slots=True)
class CachedRelease:
    """A release in the cache.

    `digest` identifies its books: releases with the same code have the same digest. `equals` says
    in words which sets of fixes equal it, by algorithm. `error` says why a release cannot be
    matched.
    """

    version: str
    digest: str | None
    equals: dict[str, str]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RoleLocation:
    """One role of a path: where it was found (None if it was not), its line, and what it reads."""

    role: Role
    place: str | None
    line: int | None
    reads: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explained:
    """One path in detail: where each role was found, and what else was lifted."""

    name: str
    digest: str
    found: tuple[RoleLocation, ...]
    followed: tuple[str, ...]  # definitions lifted because a role's function leads to them
    unknown: tuple[str, ...]  # global names without a stand-in


def releases(recordings: Sequence[Path]) -> Iterator[CachedRelease]:
    """Yield every release whose wheel is in the cache, with the sets of fixes that equal it over these recordings.

    Raises RecordingError if a recording cannot be read. Recordings are not read if all matches are
    in the cache.
    """
    matches, match = Matches(recordings), _over(recordings)
    for version in wheels.in_cache():
        try:
            surface = surface_of(Lifted(f"sglang=={version}", Origin.RELEASE, version))
            if (found := matches.load(surface)) is None:
                found = match(surface)
                matches.save(surface, found)
            yield CachedRelease(
                version, surface.digest, {name: str(one) for name, one in found.items()}
            )
        except RecordingError:  # a bad recording says nothing about the release
            raise
        except SpecdiffError as error:
            yield CachedRelease(version, None, {}, str(error))


def _over(paths: Sequence[Path]) -> Callable[[Surface], dict[str, Match]]:
    """Return a function that matches a surface over these recordings, which it reads at its first call."""
    read: list[Columns] = []

    def match(surface: Surface) -> dict[str, Match]:
        from ...recorders import hdf5  # imported late: torch comes with the engine
        from ..columns.shared import Columns
        from .match import match_apart

        if not read:
            read.extend(Columns(hdf5.load(path)) for path in paths)
        return match_apart(read, Program(surface))

    return match


def explained(path: Lifted) -> Explained:
    """Describe one path in detail."""
    surface = surface_of(path)
    roles = tuple(_locate(surface, role) for role in Role)
    places = set(surface.roles.values())
    followed = tuple(item.key for item in surface.definitions if item.key not in places)
    return Explained(surface.name, surface.digest, roles, followed, surface.unknown)


def _locate(surface: Surface, role: Role) -> RoleLocation:
    place = surface.roles.get(role.value)
    if place is None:
        return RoleLocation(role, None, None, ())
    definition = next(item for item in surface.definitions if item.key == place)
    return RoleLocation(role, place, definition.line, definition.reads)
