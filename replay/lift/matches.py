"""Cache of the sets of fixes that equal a lifted sglang, by algorithm.

A match is computed once for each combination of surface, recordings and engine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..quantity import Quantity
from ..spec import FixSet
from .cache import cache_root, write
from .surface import Surface

_ROOT = Path(__file__).resolve().parents[2]
_ENGINE = ("replay", "recorders")  # all code that reads a recording or computes over it


@dataclass(frozen=True, slots=True)
class Match:
    """The sets of fixes that equal these books on every value of every recording.

    If `sets` is empty, `unmatched` lists the quantities that no set matches. `num_compared` counts
    the values compared over all recordings.
    """

    sets: tuple[frozenset[int], ...]
    unmatched: tuple[Quantity, ...]
    num_compared: int

    def __str__(self) -> str:
        if not self.num_compared:
            return "nothing compared"
        if self.sets:
            return " = ".join(str(FixSet(fixes)) for fixes in self.sets)
        if self.unmatched:
            return f"no set of fixes, in {', '.join(q.value for q in self.unmatched)}"
        return "no single set of fixes"


class Matches:
    """The matches for one set of recordings."""

    def __init__(self, recordings: Iterable[Path]) -> None:
        """Hash the recordings. Raises OSError if one cannot be read."""
        digests = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in recordings)
        parts = (_engine(), *digests)
        self._key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def kept(self, surface: Surface) -> Path:
        """Return where the match of this surface is stored."""
        return cache_root() / "matched" / f"{surface.digest}-{self._key}.json"

    def load(self, surface: Surface) -> dict[str, Match] | None:
        """Load a match; None if none was saved or the saved one cannot be read."""
        try:
            raw = json.loads(self.kept(surface).read_text(encoding="utf-8"))
            return {algorithm: _read(match) for algorithm, match in raw.items()} or None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def save(self, surface: Surface, found: Mapping[str, Match]) -> None:
        raw = {algorithm: _plain(match) for algorithm, match in found.items()}
        write(self.kept(surface), json.dumps(raw))


def _plain(match: Match) -> dict[str, object]:
    return {
        "sets": [sorted(fixes) for fixes in match.sets],
        "unmatched": [quantity.value for quantity in match.unmatched],
        "num_compared": match.num_compared,
    }


def _read(raw: dict[str, Any]) -> Match:
    sets = tuple(frozenset(map(int, fixes)) for fixes in raw["sets"])
    return Match(sets, tuple(map(Quantity, raw["unmatched"])), int(raw["num_compared"]))


@cache
def _engine() -> str:
    """Hash our own code, because a match that another version of specdiff found may be wrong."""
    digest = hashlib.sha256()
    for folder in _ENGINE:
        for path in sorted((_ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
