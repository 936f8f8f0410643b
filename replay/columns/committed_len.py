"""Compute kv_committed_len and the counters under one set of rules, for every touch of every request."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...recorders.recording import Recording
from ...recorders.schema import NONE64, Kind
from ..decisions import GOES_ON, decisions
from ..paths.rules import Rules, StaleRows
from ..tails import tails
from ..tensors import column
from .touches import Touches, launch_events, running


@dataclass(frozen=True, slots=True, eq=False)
class CommittedByTouch:
    """The committed length before and after each touch (int64)."""

    before: Tensor
    after: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class CommittedWithClaims:
    """The committed length and its open claims after each touch (int64), and whether they are known (bool)."""

    raw: Tensor
    claims: Tensor
    known: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Counters:
    """spec_verify_ct and spec_accepted_drafts after each touch (int64); `known` says where their start is known."""

    verify_ct: Tensor
    accepted_drafts: Tensor
    known: Tensor


def committed_by_touch(recording: Recording, touches: Touches, rules: Rules) -> CommittedByTouch:
    """Compute the committed lengths under these rules.

    No observed length is read: the lengths start from the seq_len of an extend or a seed.
    """
    delta = torch.zeros_like(touches.row)
    delta[touches.kind == Kind.PREPARE] = rules.claim
    results = touches.kind == Kind.RESULT
    delta[results] = _result_delta(recording, touches.row[results], rules)
    start = torch.zeros_like(delta)
    for kind, rows in ((Kind.EXTEND, recording.extend_rows), (Kind.SEED, recording.seed_rows)):
        begins = touches.kind == kind
        start[begins] = column(rows.seq_len)[touches.row[begins]]
    after = running(touches, start, delta)
    return CommittedByTouch(after - delta, after)


def claims(recording: Recording, touches: Touches, rules: Rules) -> tuple[Tensor, Tensor]:
    """Return the open claims before and after each touch, from the claims that these rules' prepares make."""
    claimed = torch.where(touches.kind == Kind.PREPARE, rules.claim, 0)
    return open_claims(recording, touches, claimed)


def open_claims(recording: Recording, touches: Touches, claimed: Tensor) -> tuple[Tensor, Tensor]:
    """Return the open claims before and after each touch, given how many slots each PREPARE touch claimed.

    A result closes what the prepare of its own launch claimed. A retract in between voids that
    claim: the prepare and the result are then in different segments.
    """
    closed = torch.zeros_like(claimed)
    results = torch.nonzero(touches.kind == Kind.RESULT).flatten()
    launched = launch_events(recording)[touches.row[results]]
    prepare = touches.prepare_before(touches.qid[results], launched)
    known = (launched != NONE64) & (prepare >= 0)
    prepare = prepare.clamp(min=0)
    same = known & (touches.segment[prepare] == touches.segment[results])
    closed[results] = torch.where(same, claimed[prepare], 0)
    delta = claimed - closed
    after = running(touches, torch.zeros_like(delta), delta)
    return after - delta, after


def counters(recording: Recording, touches: Touches, rules: Rules) -> Counters:
    """Count verifies and accepted drafts.

    The counts start at 0 with a request and survive its retracts.
    """
    rows = recording.result_rows
    results = touches.kind == Kind.RESULT
    row = touches.row[results]
    stale = _stale(recording)[row]
    counts = torch.ones_like(row) if rules.stale_counts else (~stale).to(torch.int64)
    counts[torch.from_numpy(tails(recording).answered)[row]] = 0  # nothing is drafted for tails
    drafts = column(rows.accept_len)[row] - _non_draft(recording)[row]
    verify, accepted = torch.zeros_like(touches.row), torch.zeros_like(touches.row)
    verify[results], accepted[results] = counts, drafts * counts
    first = torch.searchsorted(touches.qid, touches.qid)  # the first touch of the same request
    known = _fresh(recording, touches)[first] & (touches.epoch == touches.epoch[first])
    return Counters(_since(verify, first), _since(accepted, first), known)


def _since(delta: Tensor, first: Tensor) -> Tensor:
    """Return the running sum of `delta` from index `first` on."""
    total = torch.cumsum(delta, 0)
    return total - (total - delta)[first]


def _fresh(recording: Recording, touches: Touches) -> Tensor:
    """Mark the touches at which a request's counters are certainly 0: an extend before any verify."""
    fresh = touches.kind == Kind.EXTEND
    outputs = column(recording.extend_rows.output_len)[touches.row[fresh]]
    fresh[fresh.clone()] = outputs <= recording.outputs_before_verify
    return fresh


def _result_delta(recording: Recording, row: Tensor, rules: Rules) -> Tensor:
    """Return by how much each of these results changes the committed length."""
    rows = recording.result_rows
    live = column(rows.num_emitted)[row] - rules.claim
    retracted = column(rows.is_retracted)[row] == 1
    stale = StaleRows(column(rows.accept_len)[row], retracted, rules.claim)
    delta = torch.where(_stale(recording)[row], rules.stale_delta(stale), live)
    tail = torch.from_numpy(tails(recording).answered)[row]
    return torch.where(tail, _tail_delta(recording, rules)[row], delta)


def _tail_delta(recording: Recording, rules: Rules) -> Tensor:
    """Return each row's delta for the case that its request is a tail: its one token is committed if the request continues.

    Apart from the claim, this is the same for every set of fixes, because only releases with the
    books of 0.5.19 have tails.
    """
    decided = decisions(recording)
    goes_on = torch.zeros(len(recording.result_rows.qid), dtype=torch.int64)
    goes_on[column(decided.row[decided.finish == GOES_ON])] = 1
    void = column(recording.result_rows.is_retracted) == 1
    return torch.where(void, 0, goes_on - rules.claim)


def _stale(recording: Recording) -> Tensor:
    """Mark the result rows whose request had been retracted or had finished."""
    rows = recording.result_rows
    return (column(rows.is_retracted) == 1) | (column(rows.finished) == 1)


def _non_draft(recording: Recording) -> Tensor:
    """Return the number of tokens in a run that are not drafts: 1 (the bonus), unless the result says otherwise (0.5.20 on)."""
    said = column(recording.results.num_non_draft)
    return torch.where(said == NONE64, 1, said)[column(recording.owner(Kind.RESULT))]
