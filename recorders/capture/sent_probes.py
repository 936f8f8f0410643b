"""The probe of messages to clients: how much of each list a finished request was sent in total."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..schema import NONE64, Kind, reason_from_json
from .probe import Probe
from .reading import int64
from .recorder import Recorder

_SENT_COUNTS = "_specdiff_sent"  # on requests


@dataclass(slots=True)
class SentCounts:
    """What one request was sent so far. It is stored on the request."""

    qid: int  # to recognize a copy of a request, which has the counts of its original
    messages: int = 0
    output_ids: int = 0
    in_order: int = 0  # ids before the first slice that is not the request's next output ids
    logprobs: int = 0

    def add(self, output: Any, i: int, req: Any) -> None:
        """Add entry `i` of one message."""
        ids, held = output.output_ids[i], req.output_ids
        start, end = self.output_ids, self.output_ids + len(ids)
        if self.in_order == start and _same(ids, held[start:end]):
            self.in_order = end
        self.messages, self.output_ids = self.messages + 1, end
        if req.return_logprob and output.output_token_logprobs_val is not None:
            self.logprobs += len(output.output_token_logprobs_val[i])


def _same(ids: Any, held: Any) -> bool:
    return bool(ids == held) if type(ids) is type(held) else list(ids) == list(held)


def _send_before(recorder: Recorder, self: Any, output: Any, *_: Any, **__: Any) -> Any:
    """Return the message if it holds generated tokens and is really sent; most ranks have no socket."""
    leaves = self.socket is not None and type(output).__name__.startswith("BatchTokenID")
    return output if leaves and output.output_ids is not None else None


def _send_after(recorder: Recorder, output: Any, _: None) -> None:
    if output is None:
        return
    for i, rid in enumerate(output.rids):
        req = recorder.named.get(rid)
        if req is None:  # it was rejected before it was queued, so it is in no books
            continue
        if recorder.numbers.qid(req) < 0:
            continue
        counts = _sent_counts(recorder, req)
        counts.add(output, i, req)
        if output.finished_reasons[i] is not None:
            recorder.emit(Kind.SENT, _row(recorder, output, i, req, counts))
            for span in _spans(output, i):
                values = (counts.qid, recorder.weights(span.version), span.start, span.end)
                recorder.emit(Kind.WEIGHT_SPAN, values)


def _sent_counts(recorder: Recorder, req: Any) -> SentCounts:
    counts, qid = getattr(req, _SENT_COUNTS, None), recorder.numbers.qid(req)
    if counts is None or counts.qid != qid:
        counts = SentCounts(qid)
        setattr(req, _SENT_COUNTS, counts)
    return counts


def _row(recorder: Recorder, output: Any, i: int, req: Any, counts: SentCounts) -> tuple[int, ...]:
    """Return the columns of `schema.Sents`."""

    def length(column: str, flag: str) -> int:
        return _length(recorder, output, i, req, column, flag)

    return (
        counts.qid,
        reason_from_json(output.finished_reasons[i]),
        _reported_length(output.prompt_tokens, i),
        _reported_length(output.completion_tokens, i),
        counts.messages,
        counts.output_ids,
        counts.in_order,
        counts.logprobs if req.return_logprob else NONE64,
        length("output_hidden_states", "return_hidden_states"),
        length("routed_experts", "return_routed_experts"),
        length("indexer_topk", "return_indexer_topk"),
    )


def _spans(output: Any, i: int) -> Any:
    """Return the spans that tell the client which weights made which tokens (from 0.5.19 on)."""
    column = getattr(output, "weight_versions", None)
    return (column[i] if column else None) or ()


def _reported_length(column: Any, i: int) -> int:
    return int64(column[i]) if column else NONE64


def _length(recorder: Recorder, output: Any, i: int, req: Any, column: str, flag: str) -> int:
    """Return how many entries request `i` was sent of a list that is sent in full each time.

    The result is absent if the request did not ask for the whole list. Up to 0.5.12.post1, the
    column has entries only for the requests that asked for it.
    """
    if getattr(req, flag, False) is not True:  # from 0.5.17 on, "last" asks for one hidden state
        return NONE64
    values = getattr(output, column, None)
    if values is None:
        return 0
    if len(values) != len(output.rids):
        asked = [getattr(recorder.named.get(rid), flag, False) for rid in output.rids]
        if len(values) != sum(asked):
            return NONE64  # it is unknown which entry belongs to which request
        i = sum(asked[:i])
    return 0 if values[i] is None else len(values[i])


PROBES = {"send": Probe(_send_before, _send_after)}
