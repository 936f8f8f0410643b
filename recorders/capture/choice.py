"""What of the requests is recorded: which of them, and what of their contents (standard library only)."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

EVERY_ROW, TAIL_TOO, FULL, NO_ROWS = "returned", "tail", "full", "none"
ROWS = (EVERY_ROW, TAIL_TOO, FULL, NO_ROWS)


@dataclass(frozen=True, slots=True)
class Choice:
    """`one_in` N requests, by a hash of the request id: every rank, and both sides of a disaggregated server, choose the same.

    only: prefixes of request ids; empty means any. tokens: whether token ids are kept. rows: which routed rows are: those that
    the server returned; with the tail behind them that it cut at the stop; all from 0 on; none.
    """

    one_in: int = 1
    only: tuple[str, ...] = ()
    rows: str = EVERY_ROW
    tokens: bool = True

    @property
    def everyone(self) -> bool:
        return self.one_in == 1 and not self.only

    def takes(self, rid: str) -> bool:
        """Of any id: JSON's may hold half a surrogate pair, which is no UTF-8."""
        if self.only and not rid.startswith(self.only):
            return False
        return self.one_in == 1 or zlib.crc32(rid.encode(errors="surrogatepass")) % self.one_in == 0

    @property
    def words(self) -> str:
        """As asked for on the command line."""
        parts = [f"--sample 1/{self.one_in}"] if self.one_in > 1 else []
        parts += [f"--only-rid {prefix}" for prefix in self.only]
        parts += [f"--experts {self.rows}"] if self.rows != EVERY_ROW else []
        return " ".join(parts + ([] if self.tokens else ["--no-tokens"]))


EVERYTHING = Choice()


@dataclass(slots=True)
class Veil:
    """Token ids that cannot be read back: one filler for all but those that decide whether a request ends.

    Those are the ids that stop one, and ids outside the vocabulary. A hash of every id would still be legible: the commonest id
    is the commonest word.
    """

    _stops: set[int] = field(default_factory=set)
    _vocab_size: int | None = None
    _filler: int = 0

    def learn(self, described: dict[str, Any]) -> None:
        """From what is noted about a request, before its first token."""
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
