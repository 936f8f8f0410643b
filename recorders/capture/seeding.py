"""Find the moment at which the books of requests that are already running can begin (see `seed_event`).

With overlap scheduling, there is always some launch under way. But when a result has been processed,
only the launch after it is, and what the prepare of that launch claimed is known. Without that
claim, all releases agree on the committed lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..schema import NONE64, Mode


class Decode(NamedTuple):
    """A decode batch, from its prepare on."""

    batch: int
    reqs: list[Any]
    claims: list[int]  # by request: committed slots that its prepare added
    launch: int = NONE64  # absent: not launched yet, or its result was processed


class Seeding:
    """Tracks the decode under way, from each call of `want` until its SEED is emitted.

    The hooks check `wanted` first, so that at all other times seeding costs nothing.

    Requests of a prefill under way are in that SEED's batch, too, because sglang merges them into
    the batch before it prepares the next decode.
    """

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self._prepared: Decode | None = None  # prepared, but not launched yet
        # The last launch, if it is a decode that was prepared since `want`.
        self._launched: Decode | None = None

    def want(self) -> None:
        """Ask for a SEED."""
        self.wanted, self._prepared, self._launched = True, None, None

    def prepared(
        self, batch: int, reqs: list[Any], before: Sequence[int], after: Sequence[int]
    ) -> None:
        claims = [b - a for a, b in zip(before, after, strict=True)]
        self._prepared = Decode(batch, reqs, claims)

    def launched(self, launch: int, mode: Mode, batch: int, reqs: list[Any]) -> None:
        decode, self._prepared, self._launched = self._prepared, None, None
        if (
            mode is Mode.DECODE
            and decode is not None
            and (decode.batch, decode.reqs) == (batch, reqs)
        ):
            self._launched = decode._replace(launch=launch)

    def done(self) -> None:
        """The SEED was emitted, or cannot be."""
        self.wanted, self._prepared, self._launched = False, None, None

    def known(self, answered: int | None, under_way: list[int]) -> Decode | None:
        """Return the decode that was prepared and has no result yet, if nothing else is under way.

        `answered` is the launch whose result was processed last (None: one from before recording
        began). `under_way` holds the launches that are under way.
        """
        decode = self._launched
        # A grammar can suspend overlap: then the launch waits for this result.
        if self._prepared is not None:
            return None if under_way else self._prepared
        if decode is None:
            return None
        if under_way == [decode.launch]:
            return decode
        if not under_way and answered == decode.launch:  # overlap is off
            return decode._replace(claims=[0] * len(decode.reqs), launch=NONE64)
        return None
