"""A result whose tokens do not divide evenly among its rows: every reader treats its tokens as unknown."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lifting import bundled_recording
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import NONE32, NONE64, Kind
from specdiff.recorders.slices import kept_tokens
from specdiff.replay import spec
from specdiff.replay.agreement import agree
from specdiff.replay.columns.shared import Columns
from specdiff.replay.exercised import exercised
from specdiff.replay.explain import Toggles
from specdiff.replay.laws.room import room
from specdiff.replay.laws.statistics import stride
from specdiff.replay.ledger import Series
from specdiff.replay.observed import observed
from specdiff.replay.outputs import UNKNOWN, outputs
from specdiff.replay.quantity import Quantity
from specdiff.replay.verdict import ledger_of
from test_online import _watched


@pytest.fixture(scope="module")
def even() -> Recording:
    return bundled_recording("0.5.23-random")


@pytest.fixture(scope="module")
def at(even: Recording) -> int:
    """The index of a decode result with several requests."""
    rows = even.result_rows
    owner = even.owner(Kind.RESULT)
    decode = np.isin(np.arange(len(even.results.mode)), owner[rows.accept_len != NONE32])
    several = np.flatnonzero(decode & (even.results.num_rows > 2) & (even.results.stride != NONE64))
    return int(several[len(several) // 2])


@pytest.fixture(scope="module")
def uneven(even: Recording, at: int) -> Recording:
    """The recording with one token more in that result. Rounded down, its rows would be as wide as before."""
    counts = even.results.num_tokens.copy()
    counts[at] += 1
    tokens = np.insert(even.tokens, int(counts[: at + 1].sum()) - 1, 7)
    results = dataclasses.replace(even.results, num_tokens=counts)
    return dataclasses.replace(even, results=results, tokens=tokens)


def test_the_uneven_result_has_no_width_and_the_others_keep_theirs(
    even: Recording, uneven: Recording, at: int
) -> None:
    width = even.result_width
    assert width[at] > 1 and (width * even.results.num_rows == even.results.num_tokens).all()
    assert uneven.result_width.tolist() == [*width[:at], 0, *width[at + 1 :]]


def test_laws_leave_out_the_uneven_result_and_judge_the_others(
    even: Recording, uneven: Recording, at: int
) -> None:
    event = int(even.event_of(Kind.RESULT)[at])
    for law in (stride, room):
        before, after = (law(Columns(one), observed(Columns(one))) for one in (even, uneven))
        assert after.holds.all() and 0 < len(after.event) < len(before.event), law
    assert event not in stride(Columns(uneven), observed(Columns(uneven))).event
    wrong = uneven.results.stride.copy()
    wrong[at] += 1
    told = dataclasses.replace(uneven, results=dataclasses.replace(uneven.results, stride=wrong))
    assert _watched(uneven) == _watched(told) == _watched(even)
    assert exercised(uneven) == exercised(even)


def test_the_tokens_of_the_uneven_result_belong_to_no_request(
    even: Recording, uneven: Recording, at: int
) -> None:
    rows = np.flatnonzero(even.owner(Kind.RESULT) == at)
    lost = sum(max(int(n), 0) for n in even.result_rows.num_emitted[rows])
    everybody = range(len(even.rids))
    known, left = (outputs(one, everybody) for one in (even, uneven))
    assert sum(int((left[q] == UNKNOWN).sum() - (known[q] == UNKNOWN).sum()) for q in known) > 0
    for qid in everybody:
        there = left[qid] != UNKNOWN
        assert np.array_equal(left[qid][there], known[qid][: len(there)][there])
    found = agree(even, uneven)
    assert found.first is not None and found.first.what == "num_tokens"
    assert found.num_differed == 1 < agree(even, even).num_values - found.num_values == lost
    one = np.arange(len(even.rids)) == even.result_rows.qid[rows[0]]
    _, counts = kept_tokens(uneven, one, np.ones(len(even.results.mode), dtype=bool))
    assert counts[at] == 0


def test_finishes_that_the_lost_tokens_decide_are_not_captured(
    even: Recording, uneven: Recording, at: int
) -> None:
    rows = np.flatnonzero(even.owner(Kind.RESULT) == at)
    whole, less = (_decided(one) for one in (even, uneven))
    lost = (whole.captured & ~less.captured).numpy()
    assert lost.any() and set(whole.cells.row[lost].tolist()) <= set(rows.tolist())
    both = less.captured
    assert (whole.values[both] == less.values[both]).all()


def _decided(recording: Recording) -> Series:
    columns = Columns(recording)
    path = spec.parse("sglang==0.5.23")
    return ledger_of(columns, Toggles(columns), path, [Quantity.FINISH])[Quantity.FINISH]
