"""The choice of which requests are recorded, and what of their contents (standard library only)."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

EVERY_ROW, TAIL_TOO, FULL, NO_ROWS = "returned", "tail", "full", "none"
ROWS = (EVERY_ROW, TAIL_TOO, FULL, NO_ROWS)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which requests to record, and what of their contents.

    - `one_in`: record one request in N, chosen by a hash of its id. Every rank, and both sides of a
      disaggregated server, choose the same requests.
    - `only`: prefixes of request ids to record; empty means all.
    - `rows`: which routed rows to keep: those that the server returned ("returned"), also the tail
      that it cut off at the stop ("tail"), all from position 0 on ("full"), or none ("none").
    - `tokens`: whether to keep token ids.
    """

    one_in: int = 1
    only: tuple[str, ...] = ()
    rows: str = EVERY_ROW
    tokens: bool = True

    @property
    def everyone(self) -> bool:
        return self.one_in == 1 and not self.only

    def takes(self, rid: str) -> bool:
        """Whether the request with this id is recorded.

        An id that comes from JSON may contain half a surrogate pair, which is not valid UTF-8.
        """
        if self.only and not rid.startswith(self.only):
            return False
        return self.one_in == 1 or zlib.crc32(rid.encode(errors="surrogatepass")) % self.one_in == 0

    @property
    def words(self) -> str:
        """The choice as options of the command line."""
        parts = [f"--sample 1/{self.one_in}"] if self.one_in > 1 else []
        parts += [f"--only-rid {prefix}" for prefix in self.only]
        parts += [f"--experts {self.rows}"] if self.rows != EVERY_ROW else []
        return " ".join(parts + ([] if self.tokens else ["--no-tokens"]))


EVERYTHING = Choice()


@dataclass(slots=True)
class TokenMask:
    """Replaces token ids by one filler (`--no-tokens`).

    Ids that decide whether a request ends stay: stop ids, and ids outside the vocabulary. Hashing
    every id would not hide the text: the most frequent id is the most frequent word.
    """

    _stops: set[int] = field(default_factory=set)
    _vocab_size: int | None = None
    _filler: int = 0

    def learn(self, described: dict[str, Any]) -> None:
        """Learn the stop ids and the vocabulary size of a request, before its first token."""
        self._stops |= set(_stop_ids(described))
        size = described.get("vocab_size")
        if size is not None:
            self._vocab_size = size if self._vocab_size is None else min(size, self._vocab_size)
        while self._filler in self._stops:
            self._filler += 1

    def __call__(self, tokens: Iterable[int]) -> list[int]:
        stops, size, filler = self._stops, self._vocab_size, self._filler
        return [
            one if one in stops or one < 0 or (size is not None and one >= size) else filler
            for one in tokens
        ]


def _stop_ids(described: dict[str, Any]) -> Iterator[int]:
    for name, ids in described.get("stop", {}).items():
        if name.endswith("token_ids"):
            yield from ids
