"""The choice of which requests are recorded, and what of their contents (standard library only)."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic_ns as now
from typing import Any, NamedTuple

EVERY_ROW, TAIL_TOO, FULL, NO_ROWS = "returned", "tail", "full", "none"
_FEW = 16  # up to this many requests with stop ids of their own, nobody looks for ended ones
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


class _Kept(NamedTuple):
    """Which ids of a request's tokens stay, and what replaces the others."""

    stops: frozenset[int]
    filler: int

    @classmethod
    def of(cls, stops: frozenset[int]) -> _Kept:
        return cls(stops, next(one for one in itertools.count() if one not in stops))


class TokenMask:
    """Replaces token ids by a filler (`--no-tokens`).

    Ids that decide whether their request ends stay: its stop ids, and ids outside the vocabulary.
    The stop ids that a client sends unmask nothing of other clients. Hashing every id would not hide
    the text: the most frequent id is the most frequent word.
    """

    def __init__(self, is_there: Callable[[int], bool]) -> None:
        """`is_there(number)` tells whether the server still has a request."""
        self._is_there = is_there
        self._shared = _Kept.of(frozenset())  # the stop ids of the model, which all requests have
        self._own: dict[int, _Kept] = {}  # qid -> also its own, if it has others
        self._gone: dict[int, int] = {}  # qid -> time at which the server no longer had it
        self._look_at = _FEW  # when there are so many, look for those that are gone
        self._vocab_size: int | None = None

    def learn(self, qid: int, described: dict[str, Any], time_ns: int) -> None:
        """Learn the stop ids and the vocabulary size of a request, before its first token.

        `time_ns` is when its record was queued.
        """
        stop = described.get("stop", {})
        of_model = {*stop.get("eos_token_ids", ()), *stop.get("tokenizer_token_ids", ())}
        if not of_model <= self._shared.stops:
            self._shared = _Kept.of(self._shared.stops | of_model)
            more = self._shared.stops
            self._own = {one: _Kept.of(kept.stops | more) for one, kept in self._own.items()}
        own = frozenset(stop.get("token_ids", ()))
        if not own <= self._shared.stops:
            if len(self._own) >= self._look_at:
                self._forget(time_ns)
            self._own[qid] = _Kept.of(own | self._shared.stops)
        size = described.get("vocab_size")
        if size is not None:
            self._vocab_size = size if self._vocab_size is None else min(size, self._vocab_size)

    def _forget(self, time_ns: int) -> None:
        """Forget requests that the server no longer has.

        Results that name them may still be queued, but ahead of any record that is queued later. So
        they are forgotten when such a record (of time `time_ns`) is packed.
        """
        for qid in [qid for qid, since in self._gone.items() if since < time_ns]:
            del self._gone[qid], self._own[qid]
        for qid in self._own.keys() - self._gone.keys():
            if not self._is_there(qid):
                self._gone[qid] = now()
        # Those that are gone may stay for long, if much is queued. Do not look at them each time.
        here = len(self._own) - len(self._gone)
        self._look_at = max(_FEW + 2 * here, len(self._own) * 3 // 2)

    def __call__(self, tokens: Sequence[int], qids: Sequence[int]) -> list[int]:
        """Mask the tokens of a result, which are divided evenly among its requests."""
        if not self._own or not any(qid in self._own for qid in qids):
            return self._masked(tokens, self._shared)
        width, rest = divmod(len(tokens), len(qids))
        if rest:  # nobody knows whose they are
            return self._masked(tokens, self._shared)
        masked: list[int] = []
        for place, qid in enumerate(qids):
            row = tokens[place * width : (place + 1) * width]
            masked += self._masked(row, self._own.get(qid, self._shared))
        return masked

    def _masked(self, tokens: Iterable[int], kept: _Kept) -> list[int]:
        size, (stops, filler) = self._vocab_size, kept
        return [
            one if one in stops or one < 0 or (size is not None and one >= size) else filler
            for one in tokens
        ]
