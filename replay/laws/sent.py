"""Laws on what clients were really sent: it ends where their tokens end (`tokens`, `returned`, `logprobs`, `hidden-states`), and what
an RL trainer relies on (`trainer`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...recorders.schema import NONE64, Kind
from ..columns.shared import Columns
from ..columns.touches import gaps_before
from ..ledger import Ledger
from ..quantity import Quantity
from ..tensors import column
from .law import Places, exactly, together, within
from .rows import num_rows


def tokens(columns: Columns, ledger: Ledger) -> Places:
    """The output ids through the stop: all of them, each once and in its place, and as many as the client is told."""
    sent = _sent(columns, ledger)
    names = ("num_output_ids", "num_in_order", "completion_tokens")
    return together([sent.exactly(name, sent.tokens) for name in names])


def returned(columns: Columns, ledger: Ledger) -> Places:
    """No list has more entries than there are tokens: of the output, and of rows, of the sequence but the last token."""
    sent = _sent(columns, ledger)
    sequence = sent.prompt + sent.tokens - 1
    return together(
        [
            sent.at_most("num_logprobs", sent.logprobs),
            sent.at_most("num_hidden_states", sent.tokens),
            sent.at_most("experts_rows", (sequence - sent.start_len).clamp(min=0)),
            sent.at_most("indexer_rows", sequence.clamp(min=0)),
        ]
    )


def logprobs(columns: Columns, ledger: Ledger) -> Places:
    """As many log probabilities as tokens; but one for who wants no token."""
    sent = _sent(columns, ledger)
    return sent.exactly("num_logprobs", sent.logprobs)


def hidden_states(columns: Columns, ledger: Ledger) -> Places:
    """As many hidden states as tokens, where the first is that of a whole prefill."""
    sent = _sent(columns, ledger)
    return sent.exactly("num_hidden_states", sent.tokens)


def trainer(columns: Columns, ledger: Ledger) -> Places:
    """rows + start_len + 1 == prompt tokens + returned tokens, for every request that asked a server that captures.

    Both sums are of what the client was sent and told; only the rows of a path other than `observed` are the path's.
    """
    sent, sents = _of(columns), columns.recording.sents
    state = column(columns.recording.finishes.experts_state)[sent.finish]
    returned = column(sents.prompt_tokens)[sent.row] + column(sents.num_output_ids)[sent.row]
    rows = column(sents.experts_rows)[sent.row]
    # A start at the end of the sequence leaves no row to align.
    known = (rows != NONE64) & (state != NONE64) & (returned - 1 > sent.start_len)
    if ledger.path != "observed":
        series = ledger[Quantity.ROUTED_EXPERTS]  # one cell for every finish
        known &= series.captured[sent.finish]
        rows = num_rows(series, sent.finish)
    found = rows + sent.start_len + 1
    name = "experts_rows + start_len + 1"
    return exactly(name, sent.event[known], sent.qid[known], found[known], returned[known])


@dataclass(frozen=True, slots=True, eq=False)
class _Sent:
    """Requests whose end was sent, and their finishes: what was decided against what went out."""

    columns: Columns
    row: Tensor  # of the sents
    finish: Tensor  # of the finishes
    event: Tensor
    qid: Tensor

    @property
    def tokens(self) -> Tensor:
        """How many a client is to get: outputs through the stop."""
        finish = self.columns.finish_rows
        return torch.minimum(finish.finished_len, finish.output_len)[self.finish]

    @property
    def logprobs(self) -> Tensor:
        """How many are due; a prompt that is scored gets that of the token that nobody wants, on purpose (#26510)."""
        wanted = column(self.columns.recording.requests.max_new_tokens)[self.qid]
        return torch.where(wanted == 0, 1, self.tokens)

    @property
    def prompt(self) -> Tensor:
        return self.columns.finish_rows.origin_len[self.finish]

    @property
    def start_len(self) -> Tensor:
        """As the client asked when the request arrived: a server that changes it by the finish is none the better for that."""
        asked = column(self.columns.recording.requests.start_len)[self.qid]
        return torch.where(asked == NONE64, self.columns.finish_rows.start_len[self.finish], asked)

    def exactly(self, name: str, expected: Tensor) -> Places:
        return self._held(name, expected, expected)

    def at_most(self, name: str, limit: Tensor) -> Places:
        return self._held(name, torch.zeros_like(limit), limit)

    def _held(self, name: str, low: Tensor, high: Tensor) -> Places:
        found = column(getattr(self.columns.recording.sents, name))[self.row]
        return within(name, self.event, self.qid, found, low, high).some(found != NONE64)


def _sent(columns: Columns, ledger: Ledger) -> _Sent:
    """What was sent is the server's own doing: on another path there is nothing to check."""
    sent = _of(columns)
    if ledger.path == "observed":
        return sent
    none = torch.zeros(0, dtype=torch.int64)
    return _Sent(columns, none, none, none, none)


def _of(columns: Columns) -> _Sent:
    """Those whose whole life was recorded: a message that was missed leaves the sums of all later ones short."""
    recording = columns.recording
    event, qid = column(recording.event_of(Kind.SENT)), column(recording.sents.qid)
    finish = _last(column(recording.finishes.qid), len(recording.rids))[qid]
    arrived = _first(column(recording.arrives.qid), len(recording.rids))[qid]
    seen = column(recording.arrives.requeued) != NONE64
    known = (finish >= 0) & (arrived >= 0)
    since = column(recording.event_of(Kind.ARRIVE))
    epoch = gaps_before(recording, event)
    if len(since):
        known &= seen[arrived.clamp(min=0)]
        known &= gaps_before(recording, since[arrived.clamp(min=0)]) == epoch
    row = torch.nonzero(known).flatten()
    return _Sent(columns, row, finish[row], event[row], qid[row])


def _last(qid: Tensor, count: int) -> Tensor:
    """Per request the last row that names it, -1: none does."""
    rows = torch.full((count,), -1)
    return rows.scatter_reduce(0, qid, torch.arange(len(qid)), "amax")


def _first(qid: Tensor, count: int) -> Tensor:
    """Per request the first row that names it, -1: none does."""
    rows = _last(qid.flip(0), count)
    return torch.where(rows >= 0, len(qid) - 1 - rows, -1)
