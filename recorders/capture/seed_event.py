"""Emit a SEED for requests that are already running when recording begins, so that their books can begin."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..schema import NONE32, Kind
from .recorder import Recorder
from .seeding import Decode

_NO_CUTS: Mapping[int, int] = MappingProxyType({})


def emit_seed(recorder: Recorder, answered: int | None, cut: Mapping[int, int] = _NO_CUTS) -> None:
    """Emit the SEED if possible, after the result of launch `answered` was processed.

    `answered` is None for a launch before recording began. `cut` tells, by request, how many of its
    accepted tokens a grammar cut off. The length on the device includes these, and such a request
    ends here.
    """
    try:
        decode = recorder.seeding.known(answered, recorder.numbers.under_way(answered))
        if decode is not None:
            _emit(recorder, decode, cut)
    except Exception as error:  # noqa: BLE001 (an error in seeding must not lose other events)
        recorder.seeding.wanted = False
        recorder.failed(error)


def _emit(recorder: Recorder, decode: Decode, cut: Mapping[int, int]) -> None:
    recorder.seeding.done()
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
