"""What `specdiff paths` shows: the releases in the cache with their books, and where one path's roles were found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...recorders.errors import SpecdiffError
from ...recorders.recording import Recording
from ..columns.shared import Columns
from ..spec import Lifted, Origin
from . import wheels
from .link import compiled
from .match import match
from .open import surface_of
from .roles import Role
from .surface import Surface


@dataclass(frozen=True, slots=True)
class Known:
    """A release in the cache. `digest`: of its books, equal where they are the same code; `equals`: in words."""

    version: str
    digest: str | None
    equals: str


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


def releases(recordings: Sequence[Recording]) -> Iterator[Known]:
    """Every release whose wheel is in the cache, and the sets of fixes that equal it over these recordings."""
    columns = [Columns(recording) for recording in recordings]
    said: dict[str, str] = {}
    for version in wheels.in_cache():
        try:
            surface = surface_of(Lifted(f"sglang=={version}", Origin.RELEASE, version))
            if surface.digest not in said:
                said[surface.digest] = str(match(columns, compiled(surface)))
            yield Known(version, surface.digest, said[surface.digest])
        except SpecdiffError as error:
            yield Known(version, None, str(error))


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
