"""The laws about what clients were sent.

`tokens`, `returned`, `logprobs` and `hidden-states` compare each list with the client's tokens;
`trainer` checks the equation that an RL trainer relies on.
"""

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
    """The client gets its output ids up to the stop: all, each once, in order, and correctly counted."""
    sent = _sent(columns, ledger)
    names = ("num_output_ids", "num_in_order", "completion_tokens")
    return together([sent.exactly(name, sent.tokens) for name in names])


def returned(columns: Columns, ledger: Ledger) -> Places:
    """No per-token list is longer than its tokens.

    For lists of the output these are the output tokens; for rows, all tokens of the sequence except
    the last one.
    """
    sent = _sent(columns, ledger)
    sequence = sent.prompt + sent.tokens - 1
    return together(
        [
            sent.at_most("num_logprobs", sent.logprobs),
            sent.at_most("num_hidden_states", sent.tokens),
            sent.at_most("experts_rows", (sequence - sent.start_len).clamp(min=0), sent.has_start),
            sent.at_most("indexer_rows", sequence.clamp(min=0)),
        ]
    )


def logprobs(columns: Columns, ledger: Ledger) -> Places:
    """There are as many log probabilities as tokens. A request for zero tokens gets one."""
    sent = _sent(columns, ledger)
    return sent.exactly("num_logprobs", sent.logprobs)


def hidden_states(columns: Columns, ledger: Ledger) -> Places:
    """There are as many hidden states as tokens; the first one covers a whole prefill."""
    sent = _sent(columns, ledger)
    return sent.exactly("num_hidden_states", sent.tokens)


def trainer(columns: Columns, ledger: Ledger) -> Places:
    """rows + start_len + 1 = prompt tokens + returned tokens.

    Checked for every request that asked for rows, on a server that captures them. Both sides are
    what the client was sent, counts included; on a path other than `observed`, the rows are the path's own.
    If the start_len is not known, only too many rows for any start_len are a breach.
    """
    sent, sents = _of(columns), columns.recording.sents
    state = column(columns.recording.finishes.experts_state)[sent.finish]
    returned = column(sents.prompt_tokens)[sent.row] + column(sents.num_output_ids)[sent.row]
    rows = column(sents.experts_rows)[sent.row]
    # If start_len is at the end of the sequence, there is no row to align.
    known = (rows != NONE64) & (state != NONE64) & (returned - 1 > sent.start_len)
    if ledger.path != "observed":
        series = ledger[Quantity.ROUTED_EXPERTS]  # one cell per finish
        known &= series.captured[sent.finish]
        rows = num_rows(series, sent.finish)
    found = rows + sent.start_len + 1
    name = "experts_rows + start_len + 1"
    places = exactly(name, sent.event, sent.qid, found, returned)
    return places.some(known & places.certain(sent.has_start))


@dataclass(frozen=True, slots=True, eq=False)
class _Sent:
    """Requests whose end was sent, paired with their finishes: what was decided and what was sent."""

    columns: Columns
    row: Tensor  # rows of `sents`
    finish: Tensor  # rows of `finishes`
    event: Tensor
    qid: Tensor

    @property
    def tokens(self) -> Tensor:
        """The number of tokens due to the client: outputs up to the stop."""
        finish = self.columns.finish_rows
        return torch.minimum(finish.finished_len, finish.output_len)[self.finish]

    @property
    def logprobs(self) -> Tensor:
        """The number of log probabilities due to the client.

        A request for zero tokens only scores its prompt. It deliberately gets the log probability of
        the one token that the prefill yields (#26510).
        """
        wanted = column(self.columns.recording.requests.max_new_tokens)[self.qid]
        return torch.where(wanted == 0, 1, self.tokens)

    @property
    def prompt(self) -> Tensor:
        return self.columns.finish_rows.origin_len[self.finish]

    @property
    def start_len(self) -> Tensor:
        """The start_len that the client asked for, even if the server changed it before the finish; 0 if not known."""
        asked = column(self.columns.recording.requests.start_len)[self.qid]
        return torch.where(asked == NONE64, self.columns.finish_rows.start_len[self.finish], asked)

    @property
    def has_start(self) -> Tensor:
        """Whether the start_len is known. Up to 0.5.11 the scheduler is not told."""
        asked = column(self.columns.recording.requests.start_len)[self.qid]
        at_finish = column(self.columns.recording.finishes.start_len)[self.finish]
        return (asked != NONE64) | (at_finish != NONE64)

    def exactly(self, name: str, expected: Tensor) -> Places:
        return self._held(name, expected, expected, torch.ones_like(expected, dtype=torch.bool))

    def at_most(self, name: str, limit: Tensor, known: Tensor | None = None) -> Places:
        """`known`: where the limit is known; by default everywhere."""
        known = torch.ones_like(limit, dtype=torch.bool) if known is None else known
        return self._held(name, torch.zeros_like(limit), limit, known)

    def _held(self, name: str, low: Tensor, high: Tensor, known: Tensor) -> Places:
        found = column(getattr(self.columns.recording.sents, name))[self.row]
        places = within(name, self.event, self.qid, found, low, high)
        return places.some((found != NONE64) & places.certain(known))


def _sent(columns: Columns, ledger: Ledger) -> _Sent:
    """Return what was sent if the path is `observed`.

    No other path computes what is sent, so there is nothing to check on it.
    """
    sent = _of(columns)
    if ledger.path == "observed":
        return sent
    none = torch.zeros(0, dtype=torch.int64)
    return _Sent(columns, none, none, none, none)


def _of(columns: Columns) -> _Sent:
    """Return the requests that were recorded without a gap from arrival to end.

    If a message was missed, the sums of all later messages are too small.
    """
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
    """For each request, return the last row with its qid, or -1."""
    rows = torch.full((count,), -1)
    return rows.scatter_reduce(0, qid, torch.arange(len(qid)), "amax")


def _first(qid: Tensor, count: int) -> Tensor:
    """For each request, return the first row with its qid, or -1."""
    rows = _last(qid.flip(0), count)
    return torch.where(rows >= 0, len(qid) - 1 - rows, -1)
