"""What `specdiff paths` shows: the releases in the cache with their books, and where one path's roles were found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...recorders.errors import RecordingError, SpecdiffError
from ..spec import Lifted, Origin
from . import wheels
from .link import Books
from .matches import Match, Matches
from .open import surface_of
from .roles import Role
from .surface import Surface

if TYPE_CHECKING:
    from ..columns.shared import Columns


@dataclass(frozen=True, slots=True)
class Known:
    """A release in the cache. `digest`: of its books, equal where they are the same code; `equals`: in words, by algorithm.

    `error` says why a release cannot be matched.
    """

    version: str
    digest: str | None
    equals: dict[str, str]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """One role of a path: where it was found (None: nowhere), in which line, and what it reads."""

    role: Role
    place: str | None
    line: int | None
    reads: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explained:
    name: str
    digest: str
    found: tuple[Found, ...]
    followed: tuple[str, ...]  # lifted with them
    unknown: tuple[str, ...]  # global names without a stand-in


def releases(recordings: Sequence[Path]) -> Iterator[Known]:
    """Every release whose wheel is in the cache, and the sets of fixes that equal it over these recordings.

    Raises RecordingError where one of them cannot be read; of those for which all matches are kept, nothing is read.
    """
    matches, match = Matches(recordings), _over(recordings)
    for version in wheels.in_cache():
        try:
            surface = surface_of(Lifted(f"sglang=={version}", Origin.RELEASE, version))
            if (found := matches.load(surface)) is None:
                found = match(surface)
                matches.save(surface, found)
            yield Known(version, surface.digest, {name: str(one) for name, one in found.items()})
        except RecordingError:  # not the release's fault
            raise
        except SpecdiffError as error:
            yield Known(version, None, {}, str(error))


def _over(paths: Sequence[Path]) -> Callable[[Surface], dict[str, Match]]:
    """Matches a surface with the sets of fixes over these recordings, which are read when that is first asked for."""
    read: list[Columns] = []

    def match(surface: Surface) -> dict[str, Match]:
        from ...recorders import hdf5  # imported late: torch comes with the engine
        from ..columns.shared import Columns
        from .match import match_apart

        if not read:
            read.extend(Columns(hdf5.load(path)) for path in paths)
        return match_apart(read, Books(surface))

    return match


def explained(path: Lifted) -> Explained:
    surface = surface_of(path)
    roles = tuple(_found(surface, role) for role in Role)
    places = set(surface.roles.values())
    followed = tuple(item.key for item in surface.definitions if item.key not in places)
    return Explained(surface.name, surface.digest, roles, followed, surface.unknown)


def _found(surface: Surface, role: Role) -> Found:
    place = surface.roles.get(role.value)
    if place is None:
        return Found(role, None, None, ())
    definition = next(item for item in surface.definitions if item.key == place)
    return Found(role, place, definition.line, definition.reads)
