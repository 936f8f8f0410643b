"""Where recording begins among requests that are under way: what is noted of them, so that their books can begin, too.

With overlap there is no moment at which nothing is under way. But when a result has been processed, only the launch behind it is,
and what its prepare has claimed is known: without it, committed lengths are what every release agrees on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..schema import NONE32, NONE64, Kind, Mode

if TYPE_CHECKING:
    from .recorder import Recorder


class _Decode(NamedTuple):
    """A batch from its prepare on."""

    batch: int
    reqs: list[Any]
    claims: list[int]
    launch: int = NONE64  # not yet, or answered


class Seeding:
    """One SEED is emitted as soon as possible after `want`; the hooks ask `wanted` first, so that it costs nothing else.

    A prefill that is under way by then is in that batch, too: sglang merges it before it prepares the next decode.
    """

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self._prepared: _Decode | None = None  # and not launched yet
        self._launched: _Decode | None = (
            None  # the last launch, if it is a decode that was prepared since `want`
        )

    def want(self) -> None:
        self.wanted, self._prepared, self._launched = True, None, None

    def prepared(
        self, batch: int, reqs: list[Any], before: Sequence[int], after: Sequence[int]
    ) -> None:
        claims = [b - a for a, b in zip(before, after, strict=True)]
        self._prepared = _Decode(batch, reqs, claims)

    def launched(self, launch: int, mode: Mode, batch: int, reqs: list[Any]) -> None:
        made, self._prepared, self._launched = self._prepared, None, None
        if mode is Mode.DECODE and made is not None and (made.batch, made.reqs) == (batch, reqs):
            self._launched = made._replace(launch=launch)

    def processed(
        self,
        recorder: Recorder,
        answered: int | None,
        cut: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        """A result has been: of this launch, or (None) of one before recording began. `cut`: by request, how much of its
        accepted run a grammar has cut; the device's length has it, and the request ends here."""
        try:
            made = self._known(answered, recorder.numbers.under_way(answered))
            if made is not None:
                self._emit(recorder, made, cut)
        except Exception as error:  # noqa: BLE001 (no books are to be lost for want of where they begin)
            self.wanted = False
            recorder.failed(error)

    def _known(self, answered: int | None, behind: list[int]) -> _Decode | None:
        """The decode that was prepared and not answered, where nothing else is under way. `behind`: launches that are."""
        made = self._launched
        if (
            self._prepared is not None
        ):  # its launch waits for this result: no overlap, for now (grammars)
            return None if behind else self._prepared
        if made is None:
            return None
        if behind == [made.launch]:
            return made
        if not behind and answered == made.launch:  # no overlap
            return made._replace(claims=[0] * len(made.reqs), launch=NONE64)
        return None

    def _emit(self, recorder: Recorder, made: _Decode, cut: Mapping[int, int]) -> None:
        self.wanted, self._prepared, self._launched = False, None, None
        reqs = made.reqs
        qids = [recorder.numbers.qid(req) for req in reqs]
        committed = recorder.access(reqs[0]).lengths(reqs)[0]
        rows = []
        for qid, req, length, claim in zip(qids, reqs, committed, made.claims, strict=True):
            ended = req.finished_reason is not None  # its own length may be gone with its KV
            length = recorder.finished_at.get(qid, NONE32) if ended else length
            known = length != NONE32 and not req.is_retracted
            seq_len = length - claim + cut.get(qid, 0) if known else NONE32
            begins = known and not ended and qid not in cut
            rows.append((qid, int(begins), seq_len, len(req.output_ids)))
        values = (made.batch, made.launch, len(rows))
        recorder.emit(Kind.SEED, values, tuple(zip(*rows, strict=True)))
