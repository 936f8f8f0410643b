"""The recorded side of a reconciliation: the facts that a recording holds of each request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ...recorders.recording import Recording
from ...recorders.schema import NONE64, Kind, Reason
from ...recorders.stored_rows import StoredRows
from ..held import holds, not_in
from ..outputs import UNKNOWN, outputs
from .facts import REASON_WORDS, Fact, Ints, Side, format_spans

# Columns of `finishes`, and of `sents` (what was sent to the client). Files before version 3 have no `sents`.
_FINISHES = {
    Fact.CACHED_TOKENS: "cached_tokens",
    Fact.REASONING_TOKENS: "reasoning_tokens",
    Fact.SPEC_VERIFY_CT: "spec_verify_ct",
    Fact.SPEC_ACCEPTED_DRAFTS: "spec_accepted_drafts",
    Fact.HISTOGRAM_STEPS: "histogram_sum",
    Fact.HISTOGRAM_DRAFTS: "histogram_weighted",
    Fact.RETRACTIONS: "retractions",
}
_SENTS = {
    Fact.PROMPT_TOKENS: "prompt_tokens",
    Fact.COMPLETION_TOKENS: "completion_tokens",
    Fact.HIDDEN_STATES: "num_hidden_states",
    Fact.EXPERTS_ROWS: "experts_rows",
    Fact.INDEXER_ROWS: "indexer_rows",
}
_SUMS = {Fact.OUTPUT_IDS: "num_output_ids", Fact.LOGPROBS: "num_logprobs"}  # over all messages

NO_END = "the recording has no end of this request"
NO_START = "the start_len that the client asked for was not captured"
_QUEUED = "aborted in the queue: the scheduler sent nothing"
_UNASKED = "not recorded: the client did not ask for it, or the server does not keep it"
_NOT_WHOLE = "the recorded spans do not cover each token exactly once"
_GAP = "a gap in the recording may hide messages to this client"


class RecordedFacts:
    """The recorded facts, looked up by request. If a request ended several times, the last one counts."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.qids: dict[str, list[int]] = {}
        for qid, rid in enumerate(recording.rids):
            self.qids.setdefault(rid, []).append(qid)
        self._finish, self._sent = (
            {int(qid): row for row, qid in enumerate(table.qid)}
            for table in (recording.finishes, recording.sents)
        )
        self._queued = {
            int(q) for q in recording.aborts.qid[recording.aborts.queued == 1]
        } - self._finish.keys()
        self._spans: dict[int, list[int]] = {}
        for row, qid in enumerate(recording.spans.qid.tolist()):
            self._spans.setdefault(qid, []).append(row)
        self._watched = self._whole_lives()
        self._rows = {which: StoredRows(recording, which) for which in ("experts", "indexer")}

    @property
    def ended(self) -> set[int]:
        """The requests (by qid) whose client should have got a response."""
        return self._finish.keys() | self._sent.keys() | self._queued

    def width(self, which: str) -> int:
        """Return how many values a top-k row has; 0 means unknown, because no row was stored."""
        stored = getattr(self.recording, which)
        return int(stored.shape[1] * stored.shape[2])

    def start_len(self, qid: int) -> int | None:
        """Return the first row that the request asked for, or None if that is not known.

        Up to 0.5.11 the scheduler is not told.
        """
        asked, row = _known(self.recording.requests.start_len, qid), self._finish.get(qid)
        if asked is not None or row is None:
            return asked
        return _known(self.recording.finishes.start_len, row)

    def is_finished(self, qid: int) -> bool:
        """Whether the request's finish was recorded."""
        return qid in self._finish

    def sides(self, qids: Iterable[int]) -> dict[int, Side]:
        """Return what is recorded of these requests."""
        wanted = list(qids)
        tokens = outputs(self.recording, wanted)
        return {qid: self._side(qid, tokens[qid]) for qid in wanted}

    def _side(self, qid: int, tokens: Ints) -> Side:
        """Collect all facts that are recorded of one request."""
        side, finish, sent = Side(), self._finish.get(qid), self._sent.get(qid)
        if finish is None and sent is None:
            why = _QUEUED if qid in self._queued else NO_END
            side.put_all(dict.fromkeys(Fact), why)
            if qid in self._queued:
                side.values[Fact.FINISH_REASON] = REASON_WORDS[Reason.ABORT]
            return side
        self._put_finish(side, finish)
        if holds(self.recording.version, "sents"):
            self._put_sent(side, qid, sent)
        else:
            self._put_unsent(side, finish)
        replaced = self.recording.tokens_replaced
        known = replaced is None and bool((tokens != UNKNOWN).any())
        why = replaced or "no result of it was recorded"
        side.put(Fact.TOKEN_IDS, tokens if known else None, why)
        return side

    def _put_finish(self, side: Side, row: int | None) -> None:
        """Put the facts that the finish holds."""
        finishes = self.recording.finishes
        for fact, name in _FINISHES.items():
            held = holds(self.recording.version, f"finishes.{name}")
            value = None if row is None else _known(getattr(finishes, name), row)
            why = NO_END if row is None else _UNASKED if held else not_in(self.recording.version)
            side.put(fact, value, why)
        for fact, which in ((Fact.EXPERTS, "experts"), (Fact.INDEXER, "indexer")):
            replaced = self.recording.rows_replaced
            values = None if row is None or replaced else self._contents(which, row)
            side.put(
                fact, values, NO_END if row is None else replaced or self._why_no_rows(which, row)
            )

    def _put_sent(self, side: Side, qid: int, row: int | None) -> None:
        """Put the facts about what was sent to the client."""
        sents = self.recording.sents
        for fact, name in _SENTS.items():
            value = None if row is None else _known(getattr(sents, name), row)
            side.put(fact, value, NO_END if row is None else _UNASKED)
        for fact, name in _SUMS.items():
            whole = row is not None and qid in self._watched
            value = _known(getattr(sents, name), row) if whole and row is not None else None
            side.put(fact, value, NO_END if row is None else _UNASKED if whole else _GAP)
        reason = None if row is None else REASON_WORDS.get(Reason(int(sents.reason[row])))
        side.put(Fact.FINISH_REASON, reason, NO_END if row is None else "of another sort")
        self._put_spans(side, qid, row)

    def _put_spans(self, side: Side, qid: int, row: int | None) -> None:
        """Put the weight spans that were sent with the end of a request.

        If a gap may hide some of them, none is put. Messages before the end do not matter.
        """
        version, spans = self.recording.version, self.recording.spans
        at = self._spans.get(qid, ())
        told = [(int(spans.weights[i]), int(spans.start[i]), int(spans.end[i])) for i in at]
        whole = row is not None and _whole(
            told, _known(self.recording.sents.completion_tokens, row)
        )
        name = self.recording.run.weights
        value = format_spans((name(one), start, end) for one, start, end in told) if whole else None
        if row is None:
            why = NO_END
        elif not holds(version, "spans"):
            why = not_in(version)
        else:
            why = _NOT_WHOLE if told else _UNASKED
        side.put(Fact.WEIGHT_VERSIONS, value, why)

    def _put_unsent(self, side: Side, row: int | None) -> None:
        """Put what the client should have received, according to the finish.

        Used for files that do not hold what was sent.
        """
        assert row is not None
        finishes, version = self.recording.finishes, self.recording.version
        told = min(
            v
            for v in (_known(finishes.finished_len, row), _known(finishes.output_len, row))
            if v is not None
        )
        reason = REASON_WORDS.get(Reason(int(finishes.reason[row])))
        side.put(Fact.FINISH_REASON, reason, "of another sort")
        side.put(Fact.PROMPT_TOKENS, _known(finishes.origin_len, row), _UNASKED)
        side.put_all({Fact.COMPLETION_TOKENS: told, Fact.OUTPUT_IDS: told}, "")
        asked = finishes.return_routed_experts[row] == 1
        rows = _known(finishes.experts_rows, row) if asked else None
        side.put(Fact.EXPERTS_ROWS, rows, _UNASKED)
        missing = (Fact.WEIGHT_VERSIONS, Fact.LOGPROBS, Fact.HIDDEN_STATES, Fact.INDEXER_ROWS)
        side.put_all(dict.fromkeys(missing), not_in(version))

    def _why_no_rows(self, which: str, row: int) -> str:
        collected = _known(getattr(self.recording.finishes, f"{which}_rows"), row)
        return "its rows were not stored" if collected else _UNASKED

    def _contents(self, which: str, row: int) -> Ints | None:
        """Return the rows that the server returned at a finish, as one flat array.

        Return None if there were none, or if not all of them were stored.
        """
        finishes, held = self.recording.finishes, self._rows[which]
        start = _known(getattr(finishes, f"{which}_start"), row)
        count = _known(getattr(finishes, f"{which}_rows"), row)
        if start is None or not count or not held.holds(row, start, start + count):
            return None
        stored = held.rows(row, start, start + count)
        signed = stored.view(np.int32) if stored.dtype.itemsize == 4 else stored  # padding is -1
        values: Ints = signed.reshape(-1).astype(np.int64)
        return values

    def _whole_lives(self) -> set[int]:
        """Return the requests without a gap between arrival and end: so that none of their messages is missing."""
        recording = self.recording
        gaps = recording.event_of(Kind.GAP)
        seen = recording.arrives.requeued != NONE64
        qids, events = recording.arrives.qid[seen], recording.event_of(Kind.ARRIVE)[seen]
        arrived = dict(zip(qids[::-1].tolist(), events[::-1], strict=True))
        ends = recording.event_of(Kind.SENT)
        return {
            qid
            for qid, row in self._sent.items()
            if qid in arrived
            and np.searchsorted(gaps, arrived[qid]) == np.searchsorted(gaps, ends[row])
        }


def _whole(spans: list[tuple[int, int, int]], count: int | None) -> bool:
    """Whether these spans cover `count` tokens without gap or overlap, in order."""
    ends = [0, *(end for _, _, end in spans)]
    return bool(spans) and [start for _, start, _ in spans] == ends[:-1] and ends[-1] == count


def _known(column: Any, row: int) -> int | None:
    value = int(column[row])
    return None if value == NONE64 else value
