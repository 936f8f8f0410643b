"""What a project says about specdiff: the table [tool.specdiff] of its pyproject.toml."""

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
class Known:
    """A mismatch that is known: it is reported with its reason and not judged, until it is gone or has expired."""

    where: str  # the entry itself, for messages: file and number
    recording: tuple[str, ...]  # globs, matched from the right: x.h5, recordings/0.5.12-*.h5
    quantity: Quantity
    reason: str
    path: str | None = None  # on either side
    old: str | None = None
    fixed: str | None = None
    until: str | None = None  # an sglang version: from it on, the entry is an error

    def __str__(self) -> str:
        return f"{self.where} ({self.quantity.value} of {', '.join(self.recording)})"


@dataclass(frozen=True, slots=True)
class Settings:
    """`silence`: laws that `specdiff check` shows and does not judge."""

    silence: frozenset[str] = frozenset()
    known: tuple[Known, ...] = field(default=())


def load(start: Path | None = None) -> Settings:
    """The settings of the nearest pyproject.toml with a [tool.specdiff], from `start` (the current folder) upward.

    Raises UsageError naming file, key and the nearest name that exists.
    """
    try:
        folder = (start or Path.cwd()).resolve()
    except FileNotFoundError:  # we are in a folder that somebody deleted: it is of no project
        return Settings()
    for file in (parent / "pyproject.toml" for parent in (folder, *folder.parents)):
        if file.is_file() and (table := _table(file)) is not None:
            return _settings(file, table)
    return Settings()


def _table(file: Path) -> Any:
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{file}: cannot be read as TOML: {error}.") from error
    tools = raw.get("tool", {})
    _check_table(f"{file}: [tool]", tools)
    return tools.get("specdiff")


def _settings(file: Path, table: Any) -> Settings:
    where = f"{file}: [tool.specdiff]"
    _check_keys(where, table, [item.name for item in fields(Settings)])
    silence, known = table.get("silence", []), table.get("known", [])
    if not _is_texts(silence):
        raise UsageError(f"{where} silence: {silence!r}, a list of names of laws was expected.")
    if silence:
        _check_laws(where, silence)
    if not isinstance(known, list):
        raise UsageError(f"{where} known: {known!r}, a list of tables was expected.")
    entries = [
        entry
        for number, raw in enumerate(known)
        for entry in _known(f"{where} known[{number}]", raw)
    ]
    return Settings(frozenset(silence), tuple(entries))


def _check_laws(where: str, names: Collection[str]) -> None:
    from ..replay.laws.check import LAWS  # imported late: it brings torch

    laws = [law.name for law in LAWS]
    for name in names:
        if name not in laws:
            raise UsageError(f"{where} silence: {_unknown('law', [name], laws)}")


_TEXTS = ("reason", "path", "old", "fixed", "until")
_NEEDED = ("recording", "quantity", "reason")


def _known(where: str, raw: Any) -> list[Known]:
    """One for each quantity that the entry names: each must show."""
    _check_keys(where, raw, ["recording", "quantity", *_TEXTS])
    if missing := [name for name in _NEEDED if not raw.get(name)]:
        raise UsageError(f"{where}: lacks {' and '.join(missing)}; each entry needs them.")
    for name in _TEXTS:
        if name in raw and not isinstance(raw[name], str):
            raise UsageError(f"{where} {name}: {raw[name]!r}, a text was expected.")
    if ("path" in raw) == ("old" in raw or "fixed" in raw):
        raise UsageError(
            f"{where}: whose mismatch? Say path (on either side), or old and fixed, or one of them."
        )
    globs = _list(f"{where} recording", raw["recording"], "a glob")
    if not all(PurePath(one).parts for one in globs):  # as of "" and ".", which match refuses
        raise UsageError(
            f"{where} recording: {raw['recording']!r}, a glob that names a file was expected."
        )
    quantities = _quantities(where, _list(f"{where} quantity", raw["quantity"], "a name"))
    if "until" in raw and not spec.is_version(raw["until"]):
        raise UsageError(f"{where} until: {raw['until']!r} is not a version such as 0.5.25.")
    paths = {
        name: _path(where, name, raw[name]) for name in ("path", "old", "fixed") if name in raw
    }
    return [
        Known(where, tuple(globs), quantity, raw["reason"], until=raw.get("until"), **paths)
        for quantity in quantities
    ]


def _quantities(where: str, names: Collection[str]) -> list[Quantity]:
    """Without repeats. All that do not exist are named at once."""
    known = [quantity.value for quantity in Quantity]
    if missing := [name for name in dict.fromkeys(names) if name not in known]:
        raise UsageError(f"{where} quantity: {_unknown('quantity', missing, known)}")
    return [Quantity(name) for name in dict.fromkeys(names)]


def _list(where: str, given: Any, noun: str) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not _is_texts(texts):
        raise UsageError(f"{where}: {given!r}, {noun} or a list of them was expected.")
    found: list[str] = texts
    return found


def _path(where: str, key: str, text: str) -> str:
    """As reports write it. Of a commit any clone will do: it is only compared."""
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
        raise UsageError(f"{where}: {found!r}, a table was expected.")


def _unknown(what: str, given: Collection[str], names: Collection[str]) -> str:
    near = [close for name in given for close in difflib.get_close_matches(name, names, n=1)]
    hint = f" Did you mean {' and '.join(map(repr, near))}?" if near else ""
    return f"no such {what}: {', '.join(map(repr, given))}.{hint} There are {', '.join(names)}."


def _is_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)
