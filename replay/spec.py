"""Path specs: the strings that name an accounting path on every command line."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from enum import Enum

from packaging.version import InvalidVersion, Version

from ..recorders.errors import UsageError
from .paths.fixes import ALL, NUMBERS


@dataclass(frozen=True, slots=True)
class Observed:
    """What the server itself computed."""

    def __str__(self) -> str:
        return "observed"


@dataclass(frozen=True, slots=True)
class FixSet:
    """The old books with a set of the five fixes."""

    fixes: frozenset[int]

    def __str__(self) -> str:
        if self.fixes == ALL:
            return "fixed"
        if len(self.fixes) == len(ALL) - 1:
            return "fixed" + "".join(f"-{number}" for number in sorted(ALL - self.fixes))
        return "old" + "".join(f"+{number}" for number in sorted(self.fixes))


@dataclass(frozen=True, slots=True)
class Expected:
    """The set of fixes that the server of the recording should have.

    `expected.concrete` replaces it by that set.
    """

    def __str__(self) -> str:
        return "expected"


class Origin(Enum):
    """Where a lifted path's source is read from."""

    RELEASE = "release"
    REVISION = "revision"
    TREE = "tree"
    INSTALLED = "installed"


@dataclass(frozen=True, slots=True)
class Lifted:
    """The accounting functions of one sglang source.

    `where` is a version, a revision or a folder, depending on `origin`.
    """

    text: str
    origin: Origin
    where: str
    repo: str | None = None  # the clone, if `where` is a revision

    def __str__(self) -> str:
        return self.text


Path = Observed | FixSet | Expected | Lifted

OLD = FixSet(frozenset())
FIXED = FixSet(ALL)
GRAMMAR = (
    "observed, expected, old, fixed, old/fixed with fixes added and removed, such as old+23456 or fixed-26126, "
    "sglang==VERSION, sglang@REV with --repo, sglang@installed, or a folder that holds an sglang source tree"
)

_VERSION = re.compile(r"[0-9][0-9A-Za-z.!+]*")
_TOGGLE = re.compile(r"([+-])([^+-]*)")
_BASES = {"old": frozenset[int](), "fixed": ALL}
_WITHOUT_TOGGLES = ("observed", "expected")


def is_release(path: Path) -> bool:
    return isinstance(path, Lifted) and path.origin is Origin.RELEASE


def parse(text: str, repo: str | None = None) -> Path:
    """Parse a path spec without opening any source.

    Raises UsageError, which suggests the nearest valid name.

    `repo` is the git clone in which `sglang@REV` names a commit.
    """
    if text == "observed":
        return Observed()
    if text == "expected":
        return Expected()
    if text.startswith(("sglang=", "sglang@")):
        return _sglang(text, repo)
    base = re.split(r"[+-]", text, maxsplit=1)[0]
    if "/" in text or (base not in _BASES and os.path.isdir(text)):
        return Lifted(text, Origin.TREE, text)
    if base not in _BASES:
        near = difflib.get_close_matches(base, [*_WITHOUT_TOGGLES, *_BASES], n=1)
        meant = near[0] + text[len(base) :] if near and near[0] in _BASES else "".join(near)
        hint = f" Did you mean {meant!r}?" if meant else ""
        if base in _WITHOUT_TOGGLES:
            hint = f" No fix can be added to {base} or removed from it."
        if _VERSION.fullmatch(text):
            hint = f" Did you mean 'sglang=={text}'?"
        raise UsageError(f"path {text!r}: no such path.{hint} Expected {GRAMMAR}.")
    fixes = set(_BASES[base])
    for sign, number in _TOGGLE.findall(text[len(base) :]):
        fix = _number(text, number)
        fixes.add(fix) if sign == "+" else fixes.discard(fix)
    return FixSet(frozenset(fixes))


def _sglang(text: str, repo: str | None) -> Lifted:
    where = text[len("sglang==") :] if text.startswith("sglang==") else text[len("sglang@") :]
    if text.startswith("sglang=="):
        version = _version(text, where)
        return Lifted(f"sglang=={version}", Origin.RELEASE, version)
    if not text.startswith("sglang@") or not where:
        raise UsageError(f"path {text!r}: expected sglang==VERSION or sglang@REV.")
    if where == "installed":
        return Lifted(text, Origin.INSTALLED, where)
    if repo is None:
        raise UsageError(f"path {text!r}: no clone given. Name it with --repo PATH.")
    return Lifted(text, Origin.REVISION, where, repo)


def is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def _version(text: str, given: str) -> str:
    """Normalize a version to three numbers, as sglang names its releases: 0.5.12.0 becomes 0.5.12."""
    try:
        version = Version(given)
    except InvalidVersion:
        raise UsageError(f"path {text!r}: {given!r} is not a version such as 0.5.11.") from None
    base = version.base_version
    numbers = base.split(".")
    while len(numbers) > 3 and numbers[-1] == "0":
        numbers.pop()
    numbers += ["0"] * (3 - len(numbers))
    return ".".join(numbers) + str(version).removeprefix(base)


def _number(text: str, number: str) -> int:
    known = [str(known) for known in NUMBERS]
    if number not in known:
        near = difflib.get_close_matches(number, known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        wrong = (
            f"{number!r} is not one of the five fixes"
            if number
            else "the number of a fix is missing"
        )
        raise UsageError(f"path {text!r}: {wrong}.{hint} The fixes are {', '.join(known)}.")
    return int(number)
