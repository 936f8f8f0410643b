"""Read the settings of a project from [tool.specdiff] in its pyproject.toml."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePath
from typing import Any

from ..recorders.errors import UsageError
from ..replay import spec
from ..replay.quantity import Quantity

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True, slots=True)
class KnownMismatch:
    """A known mismatch. It is reported with its reason and not judged, until it no longer occurs or has expired."""

    where: str  # file and number of the entry, for messages
    recording: tuple[str, ...]  # globs, matched from the right: x.h5, recordings/0.5.12-*.h5
    quantity: Quantity
    reason: str
    path: str | None = None  # on either side
    old: str | None = None
    fixed: str | None = None
    until: str | None = None  # an sglang version; from this version on, the entry is an error

    def __str__(self) -> str:
        return f"{self.where} ({self.quantity.value} of {', '.join(self.recording)})"


@dataclass(frozen=True, slots=True)
class ProjectSettings:
    """`silence`: laws that `specdiff check` shows but does not judge."""

    silence: frozenset[str] = frozenset()
    known: tuple[KnownMismatch, ...] = field(default=())


def load(start: Path | None = None) -> ProjectSettings:
    """Load the nearest pyproject.toml with a [tool.specdiff] table, from `start` (default: the current folder) upward.

    Raises UsageError that names the file, the key and, for a misspelled name, the closest match.
    """
    try:
        folder = (start or Path.cwd()).resolve()
    except FileNotFoundError:  # the current folder was deleted, so it belongs to no project
        return ProjectSettings()
    for file in (parent / "pyproject.toml" for parent in (folder, *folder.parents)):
        if file.is_file() and (table := _table(file)) is not None:
            return _settings(file, table)
    return ProjectSettings()


def _table(file: Path) -> Any:
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{file}: cannot be read as TOML: {error}.") from error
    tools = raw.get("tool", {})
    _check_table(f"{file}: [tool]", tools)
    return tools.get("specdiff")


def _settings(file: Path, table: Any) -> ProjectSettings:
    where = f"{file}: [tool.specdiff]"
    _check_keys(where, table, [item.name for item in fields(ProjectSettings)])
    silence, known = table.get("silence", []), table.get("known", [])
    if not _is_texts(silence):
        raise UsageError(f"{where} silence: expected a list of law names, found {silence!r}.")
    if silence:
        _check_laws(where, silence)
    if not isinstance(known, list):
        raise UsageError(f"{where} known: expected a list of tables, found {known!r}.")
    entries = [
        entry
        for number, raw in enumerate(known)
        for entry in _known(f"{where} known[{number}]", raw)
    ]
    return ProjectSettings(frozenset(silence), tuple(entries))


def _check_laws(where: str, names: Collection[str]) -> None:
    from ..replay.laws.check import LAWS  # imported late: it imports torch

    laws = [law.name for law in LAWS]
    for name in names:
        if name not in laws:
            raise UsageError(f"{where} silence: {_unknown('law', [name], laws)}")


_TEXTS = ("reason", "path", "old", "fixed", "until")
_NEEDED = ("recording", "quantity", "reason")


def _known(where: str, raw: Any) -> list[KnownMismatch]:
    """Return one `KnownMismatch` per quantity of the entry, because each of them must differ."""
    _check_keys(where, raw, ["recording", "quantity", *_TEXTS])
    if missing := [name for name in _NEEDED if not raw.get(name)]:
        raise UsageError(
            f"{where}: missing {' and '.join(missing)}. Every entry needs {', '.join(_NEEDED[:-1])} and {_NEEDED[-1]}."
        )
    for name in _TEXTS:
        if name in raw and not isinstance(raw[name], str):
            raise UsageError(f"{where} {name}: expected a string, found {raw[name]!r}.")
    if ("path" in raw) == ("old" in raw or "fixed" in raw):
        raise UsageError(
            f"{where}: expected the paths of the mismatch: either path (on either side), or old, fixed or both."
        )
    globs = _list(f"{where} recording", raw["recording"], "a glob")
    if not all(PurePath(one).parts for one in globs):  # "" and ".", which match refuses
        raise UsageError(
            f"{where} recording: expected a glob that matches files, found {raw['recording']!r}."
        )
    quantities = _quantities(where, _list(f"{where} quantity", raw["quantity"], "a name"))
    if "until" in raw and not spec.is_version(raw["until"]):
        raise UsageError(
            f"{where} until: expected a version such as 0.5.25, found {raw['until']!r}."
        )
    paths = {
        name: _path(where, name, raw[name]) for name in ("path", "old", "fixed") if name in raw
    }
    return [
        KnownMismatch(where, tuple(globs), quantity, raw["reason"], until=raw.get("until"), **paths)
        for quantity in quantities
    ]


def _quantities(where: str, names: Collection[str]) -> list[Quantity]:
    """Parse the names and drop duplicates. The error lists all unknown names at once."""
    known = [quantity.value for quantity in Quantity]
    if missing := [name for name in dict.fromkeys(names) if name not in known]:
        raise UsageError(f"{where} quantity: {_unknown('quantity', missing, known)}")
    return [Quantity(name) for name in dict.fromkeys(names)]


def _list(where: str, given: Any, noun: str) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not _is_texts(texts):
        raise UsageError(f"{where}: expected {noun} or a list of them, found {given!r}.")
    found: list[str] = texts
    return found


def _path(where: str, key: str, text: str) -> str:
    """The path as reports print it. The clone does not matter, because the name is only compared."""
    try:
        return str(spec.parse(text, repo="."))
    except UsageError as error:
        raise UsageError(f"{where} {key}: {error}") from error


def _check_keys(where: str, table: Any, names: Collection[str]) -> None:
    _check_table(where, table)
    for key in table:
        if key not in names:
            raise UsageError(f"{where}: {_unknown('key', [key], names)}")


def _check_table(where: str, found: Any) -> None:
    if not isinstance(found, Mapping):
        raise UsageError(f"{where}: expected a table, found {found!r}.")


def _unknown(what: str, given: Collection[str], names: Collection[str]) -> str:
    near = [close for name in given for close in difflib.get_close_matches(name, names, n=1)]
    hint = f" Did you mean {' and '.join(map(repr, near))}?" if near else ""
    return (
        f"no such {what}: {', '.join(map(repr, given))}.{hint} Expected one of {', '.join(names)}."
    )


def _is_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)
