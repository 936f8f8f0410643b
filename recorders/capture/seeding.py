"""Emit a SEED for requests that are already running when recording begins, so that their books can begin.

With overlap scheduling, there is always some launch under way. But when a result has been processed,
only the launch after it is, and what the prepare of that launch claimed is known. Without that
claim, all releases agree on the committed lengths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..schema import NONE32, NONE64, Kind, Mode

if TYPE_CHECKING:
    from .recorder import Recorder


class _Decode(NamedTuple):
    """A decode batch, from its prepare on."""

    batch: int
    reqs: list[Any]
    claims: list[int]  # by request: committed slots that its prepare added
    launch: int = NONE64  # absent: not launched yet, or its result was processed


class Seeding:
    """Emits one SEED as soon as possible after each call of `want`.

    The hooks check `wanted` first, so that at all other times seeding costs nothing.

    Requests of a prefill under way are in that SEED's batch, too, because sglang merges them into
    the batch before it prepares the next decode.
    """

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self._prepared: _Decode | None = None  # prepared, but not launched yet
        # The last launch, if it is a decode that was prepared since `want`.
        self._launched: _Decode | None = None

    def want(self) -> None:
        self.wanted, self._prepared, self._launched = True, None, None

    def prepared(
        self, batch: int, reqs: list[Any], before: Sequence[int], after: Sequence[int]
    ) -> None:
        claims = [b - a for a, b in zip(before, after, strict=True)]
        self._prepared = _Decode(batch, reqs, claims)

    def launched(self, launch: int, mode: Mode, batch: int, reqs: list[Any]) -> None:
        decode, self._prepared, self._launched = self._prepared, None, None
        if (
            mode is Mode.DECODE
            and decode is not None
            and (decode.batch, decode.reqs) == (batch, reqs)
        ):
            self._launched = decode._replace(launch=launch)

    def processed(
        self,
        recorder: Recorder,
        answered: int | None,
        cut: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        """Emit the SEED if possible, after the result of launch `answered` was processed.

        `answered` is None for a launch before recording began. `cut` tells, by request, how many of
        its accepted tokens a grammar cut off. The length on the device includes these, and such a
        request ends here.
        """
        try:
            decode = self._known(answered, recorder.numbers.under_way(answered))
            if decode is not None:
                self._emit(recorder, decode, cut)
        except Exception as error:  # noqa: BLE001 (an error in seeding must not lose other events)
            self.wanted = False
            recorder.failed(error)

    def _known(self, answered: int | None, behind: list[int]) -> _Decode | None:
        """Return the decode that was prepared and has no result yet, if nothing else is under way.

        `behind` holds the launches that are under way.
        """
        decode = self._launched
        # A grammar can suspend overlap: then the launch waits for this result.
        if self._prepared is not None:
            return None if behind else self._prepared
        if decode is None:
            return None
        if behind == [decode.launch]:
            return decode
        if not behind and answered == decode.launch:  # overlap is off
            return decode._replace(claims=[0] * len(decode.reqs), launch=NONE64)
        return None

    def _emit(self, recorder: Recorder, decode: _Decode, cut: Mapping[int, int]) -> None:
        self.wanted, self._prepared, self._launched = False, None, None
        reqs = decode.reqs
        qids = [recorder.numbers.qid(req) for req in reqs]
        committed = recorder.access(reqs[0]).lengths(reqs)[0]
        rows = []
        for qid, req, length, claim in zip(qids, reqs, committed, decode.claims, strict=True):
            # An ended request may have lost its length together with its KV.
            ended = req.finished_reason is not None
            length = recorder.finished_at.get(qid, NONE32) if ended else length
            known = length != NONE32 and not req.is_retracted
            seq_len = length - claim + cut.get(qid, 0) if known else NONE32
            begins = known and not ended and qid not in cut
            rows.append((qid, int(begins), seq_len, len(req.output_ids)))
        values = (decode.batch, decode.launch, len(rows))
        recorder.emit(Kind.SEED, values, tuple(zip(*rows, strict=True)))
