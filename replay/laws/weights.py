"""The law `weights`: the weights reported for each token are those that computed it.

A launch computes with the weights that are active when it is made. Its result arrives one step
later, when other weights may be active. A server that counts the tokens that have arrived by then
attributes the tokens of that result to the new weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...recorders.recording import Recording
from ...recorders.schema import NONE64, ControlAct, Kind
from ..columns.shared import Columns
from ..columns.touches import gaps_before
from ..ledger import Ledger
from ..tensors import column
from .law import Places, exactly, no_places, together

_UNKNOWN = -1


def weights(columns: Columns, ledger: Ledger) -> Places:
    """Every token is in exactly one span, and was computed by the weights that the span names."""
    recording = columns.recording
    if ledger.path != "observed" or not len(recording.spans.qid):
        return no_places()
    return together([_outside_spans(recording), _by_others(recording)])


def mislabelled(recording: Recording) -> dict[int, int]:
    """Return, by the event of a span, how many of its tokens other weights computed.

    Only spans with at least one such token are included.
    """
    if not len(recording.spans.qid):
        return {}
    places = _by_others(recording)
    broken = ~places.holds
    return dict(zip(places.event[broken].tolist(), places.found[broken].tolist(), strict=True))


def _outside_spans(recording: Recording) -> Places:
    """For every final message, count the tokens that are in no span or in several; expect 0.

    The spans follow their message immediately. If a gap or the end of the recording comes after
    them, some may be missing, so that message is not checked.
    """
    spans = recording.spans
    event, qid = column(recording.event_of(Kind.SENT)), column(recording.sents.qid)
    if not len(qid):
        return no_places()
    start, end = column(spans.start), column(spans.end)
    sent = torch.searchsorted(event, column(recording.event_of(Kind.WEIGHT_SPAN)), right=True) - 1
    mine = (sent >= 0) & (qid[sent.clamp(min=0)] == column(spans.qid))
    sent, start, end = sent[mine], start[mine], end[mine]
    goes_on = sent[1:] == sent[:-1]
    due, last = torch.zeros_like(start), torch.ones_like(mine[mine])
    due[1:], last[:-1] = torch.where(goes_on, end[:-1], 0), ~goes_on
    wrong = torch.zeros_like(qid).scatter_add(0, sent, (start - due).abs())
    reaches = torch.zeros_like(qid).scatter(0, sent[last], end[last])
    completion_tokens = column(recording.sents.completion_tokens)
    next_event = event + 1 + torch.bincount(sent, minlength=len(qid))
    known = (completion_tokens != NONE64) & (next_event < len(recording.events.kind))
    known &= gaps_before(recording, next_event + 1) == gaps_before(recording, event)
    wrong = (wrong + (completion_tokens - reaches).abs())[known]
    return exactly("unlabelled_tokens", event[known], qid[known], wrong, torch.zeros_like(wrong))


def _by_others(recording: Recording) -> Places:
    """For every span that a client was sent, count the tokens that other weights computed; expect 0.

    Spans with a token whose launch is not in the recording are left out.
    """
    spans = recording.spans
    event, qid = column(recording.event_of(Kind.WEIGHT_SPAN)), column(spans.qid)
    told_weights, start, end = column(spans.weights), column(spans.start), column(spans.end)
    runs = _Runs.of(recording)
    first = torch.searchsorted(runs.qid, qid)
    counts = torch.searchsorted(runs.qid, qid, right=True) - first
    # one pair for each span and each result of its request
    span = torch.repeat_interleave(torch.arange(len(qid)), counts)
    run = first[span] + torch.arange(len(span)) - (counts.cumsum(0) - counts)[span]
    tokens = torch.minimum(runs.end[run], end[span]) - torch.maximum(runs.start[run], start[span])
    tokens = torch.where(runs.breaks[run] == _breaks(recording, event)[span], tokens, 0)
    by = runs.weights[run]

    def of(mine: Tensor) -> Tensor:
        """For each span, count its tokens in the pairs selected by `mine`."""
        held = torch.where(mine, tokens.clamp(min=0), 0)
        return torch.zeros_like(qid).scatter_add(0, span, held)

    known = of(by != _UNKNOWN) == end - start
    wrong = of(by != told_weights[span])[known]
    return exactly("mislabelled_tokens", event[known], qid[known], wrong, torch.zeros_like(wrong))


@dataclass(frozen=True, slots=True, eq=False)
class _Runs:
    """The output tokens [start, end) that each result added to its request, sorted by request.

    Stale results add none.
    """

    qid: Tensor
    start: Tensor
    end: Tensor
    weights: Tensor  # active when the result was launched
    breaks: Tensor  # see `_breaks`

    @classmethod
    def of(cls, recording: Recording) -> _Runs:
        rows = recording.result_rows
        order = torch.argsort(column(rows.qid), stable=True)
        qid, start = column(rows.qid)[order], column(rows.output_len)[order]
        end = torch.full_like(start, torch.iinfo(torch.int64).max)
        end[:-1] = torch.where(qid[1:] == qid[:-1], start[1:], end[:-1])
        owner = column(recording.owner(Kind.RESULT))[order]
        events = column(recording.event_of(Kind.RESULT))[owner]
        launched_by = _weights_of_launches(recording)[owner]
        return cls(qid, start, end, launched_by, _breaks(recording, events))


def _weights_of_launches(recording: Recording) -> Tensor:
    """For each result, return which weights were active when it was launched."""
    number, answers = column(recording.launches.launch), column(recording.results.launch)
    if not len(number):
        return torch.full_like(answers, _UNKNOWN)
    serving = _serving(recording, column(recording.event_of(Kind.LAUNCH)))
    at = torch.searchsorted(number, answers).clamp(max=len(number) - 1)
    return torch.where(number[at] == answers, serving[at], _UNKNOWN)


def _serving(recording: Recording, event: Tensor) -> Tensor:
    """Return which weights were active at each event, or _UNKNOWN.

    A gap may hide a change of weights, so after a gap only the next recorded change tells.
    """
    if not any(site.name == "weights" and site.attached for site in recording.run.sites):
        return torch.full_like(event, _UNKNOWN)
    if len(recording.run.weight_versions) < 2:
        return torch.zeros_like(event)
    controls = recording.controls
    changes = controls.act == ControlAct.WEIGHTS
    since = column(recording.event_of(Kind.CONTROL)[changes])
    unknown = torch.tensor([_UNKNOWN])  # before the first change, and after the last
    before = torch.cat([unknown, column(controls.weights_before[changes]), unknown])
    after = torch.cat([unknown, column(controls.weights[changes]), unknown])
    epoch, epochs = (
        gaps_before(recording, event),
        torch.cat([unknown, gaps_before(recording, since), unknown]),
    )
    at = torch.searchsorted(since, event)  # the last change before the event; the next is at + 1
    as_it_began = torch.where(epoch == 0, 0, _UNKNOWN)
    as_the_next_says = torch.where(epochs[at + 1] == epoch, before[at + 1], as_it_began)
    return torch.where(epochs[at] == epoch, after[at], as_the_next_says)


def _breaks(recording: Recording, event: Tensor) -> Tensor:
    """For each event, count the places before it where results may be missing.

    If a run and a span have different counts, such a place is between them, and the end of the run is unknown.
    """
    return torch.searchsorted(column(recording.breaks), event)
