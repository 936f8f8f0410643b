"""Path specs: the words that name an accounting path on every command line."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

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


Path = Observed | FixSet

OLD = FixSet(frozenset())
FIXED = FixSet(ALL)
GRAMMAR = "observed, old, fixed, or old/fixed with fixes added and removed, such as old+23456 or fixed-26126"

_TOGGLE = re.compile(r"([+-])([^+-]*)")
_BASES = {"old": frozenset[int](), "fixed": ALL}


def parse(text: str) -> Path:
    """Read a path spec. Raises UsageError naming the nearest that exists."""
    if text == "observed":
        return Observed()
    if text.startswith("sglang") or "/" in text:
        raise UsageError(
            f"path {text!r}: paths lifted out of an sglang source are not in this version of specdiff. Expected {GRAMMAR}."
        )
    base = re.split(r"[+-]", text, maxsplit=1)[0]
    if base not in _BASES:
        near = difflib.get_close_matches(base, ["observed", *_BASES], n=1)
        hint = f" Did you mean {near[0] + text[len(base) :]!r}?" if near else ""
        raise UsageError(f"path {text!r}: no such path.{hint} Expected {GRAMMAR}.")
    fixes = set(_BASES[base])
    for sign, number in _TOGGLE.findall(text[len(base) :]):
        fix = _number(text, number)
        fixes.add(fix) if sign == "+" else fixes.discard(fix)
    return FixSet(frozenset(fixes))


def _number(text: str, number: str) -> int:
    known = [str(known) for known in NUMBERS]
    if number not in known:
        near = difflib.get_close_matches(number, known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(
            f"path {text!r}: {number or 'nothing'!r} is not one of the five fixes.{hint} They are {', '.join(known)}."
        )
    return int(number)
