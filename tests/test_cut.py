"""Wherever a cut recording still has a value, it is exactly the value of the whole recording."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from children import EVERYTHING
from cuts import SOURCE, Cut, cut, some_events, some_requests, values_at
from lifting import bundled_recording, lifted
from recorded import RigRecorder
from specdiff.recorders.composition import members_before
from specdiff.recorders.cut import _SPLIT_OFFSET, Cutter, _Split
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import NONE64, Kind
from specdiff.replay import spec
from specdiff.replay.columns.shared import Columns
from specdiff.replay.explain import Toggles
from specdiff.replay.laws.check import check
from specdiff.replay.laws.law import State
from specdiff.replay.ledger import Ledger
from specdiff.replay.lift.ledger import ledger_of as lifted_ledger
from specdiff.replay.lift.open import program_of
from specdiff.replay.observed import observed
from specdiff.replay.quantity import Quantity
from specdiff.replay.verdict import ledger_of

# Values of one request each. A sum over a batch changes when requests are left out.
PER_REQUEST = [quantity for quantity in Quantity if quantity is not Quantity.SEQ_LENS_SUM]
WHOLE = {State.HOLDS, State.NOT_EXERCISED}


class Ledgers:
    """Computes the ledgers of some paths. Lifted programs are compiled once."""

    def __init__(self, *releases: str) -> None:
        self._lifted = {
            f"sglang=={v}": program_of(lifted(f"sglang=={v}")) for v in dict.fromkeys(releases)
        }
        self.paths = ("old", "fixed", "observed", *self._lifted)

    def __call__(self, columns: Columns, path: str) -> Ledger:
        if path in self._lifted:
            return lifted_ledger(columns, self._lifted[path], path)
        return ledger_of(columns, Toggles(columns), spec.parse(path))


def everything(recording: Recording) -> Cut:
    size, everybody = len(recording.events.kind), len(recording.rids)
    return Cut(recording, np.ones(everybody, dtype=bool), np.arange(size))


def said(made: Cut, ledger: Ledger) -> dict[object, tuple[int, ...]]:
    """Return the values by quantity, event and request, numbered as in the whole recording."""
    qid = np.flatnonzero(made.requests)
    return {
        (quantity, *place): value
        for quantity in PER_REQUEST
        for place, value in values_at(ledger[quantity], made.event, qid).items()
    }


@pytest.mark.parametrize(
    ("name", "releases", "cuts"),
    [
        ("0.5.10-random", ("0.5.10",), 4),
        ("0.5.23-random", ("0.5.23",), 4),
        ("0.5.14-dflash", ("0.5.14",), 4),
        ("0.5.12-merge-filter", ("0.5.12", "0.5.23"), 12),
        ("0.5.11-stale-retract", ("0.5.11", "0.5.12"), 12),
        ("0.5.12-indexer-topk", ("0.5.12",), 8),
        ("0.5.15-session-hole", ("0.5.15", "0.5.12"), 20),
    ],
)
def test_every_ledger_of_a_cut_has_the_values_of_the_whole(
    name: str, releases: tuple[str, ...], cuts: int
) -> None:
    recording, ledgers, chance = bundled_recording(name), Ledgers(*releases), random.Random(11)
    cutter, whole, columns = Cutter(recording, SOURCE), everything(recording), Columns(recording)
    before = {path: ledgers(columns, path) for path in ledgers.paths}
    values = {path: said(whole, ledger) for path, ledger in before.items()}
    laws = {path: check(columns, ledger) for path, ledger in before.items()}
    for number in range(cuts):
        requests = some_requests(recording, chance) if number % 3 else whole.requests
        events = some_events(recording, chance) if number % 2 else whole.event >= 0
        made = cut(cutter, requests, events)
        now = Columns(made.recording)
        for path in ledgers.paths:
            ledger = ledgers(now, path)
            computed = said(made, ledger)
            assert computed.items() <= values[path].items(), f"{path}, cut {number}"
            if events.all():
                # Without a gap, only what a turn inherited from a left-out turn is lost.
                mine = {at for at in values[path] if requests[at[2]]}  # type: ignore[index]
                lost = {at[0] for at in mine - computed.keys()}  # type: ignore[index]
                assert lost <= {Quantity.SESSION_COMMITTED}, f"{path}, cut {number}"
            for law, after in zip(laws[path], check(now, ledger), strict=True):
                assert law.state is not State.HOLDS or after.state in WHOLE, f"{path}: {after}"


def test_each_request_alone_has_the_values_it_had_among_the_others() -> None:
    """This includes retracts: batches that lose all their requests and later take them in again."""
    recording, ledgers = bundled_recording("0.5.10-random"), Ledgers("0.5.10")
    cutter, whole = Cutter(recording, SOURCE), everything(recording)
    values = said(whole, ledgers(Columns(recording), "sglang==0.5.10"))
    retracted = sorted(set(recording.retracts.qid.tolist()))
    assert len(retracted) > 5
    for qid in (*range(20), *retracted):
        made = cut(cutter, np.arange(len(recording.rids)) == qid, whole.event >= 0)
        computed = said(made, ledgers(Columns(made.recording), "sglang==0.5.10"))
        assert computed == {at: value for at, value in values.items() if at[2] == qid}  # type: ignore[index]


def test_a_path_begins_anew_at_any_prepare_after_a_gap() -> None:
    """DFLASH of 0.5.14 uses lengths left by the launch before, which does not exist here."""
    recording, ledgers = bundled_recording("0.5.14-dflash"), Ledgers("0.5.14")
    cutter, whole = Cutter(recording, SOURCE), everything(recording)
    values = said(whole, ledgers(Columns(recording), "sglang==0.5.14"))
    for start in recording.event_of(Kind.PREPARE)[5::40].tolist():
        events = (whole.event >= start) & (whole.event < start + 40)
        for behind in (start, start - 1):  # the event before a prepare is mostly a filter
            events[behind] = True
            made = cut(cutter, whole.requests, events)
            computed = said(made, ledgers(Columns(made.recording), "sglang==0.5.14"))
            assert computed.items() <= values.items(), f"from {behind}"


def test_after_a_left_out_turn_nothing_is_inherited_from_the_turn_before_it(
    record: RigRecorder,
) -> None:
    """A later turn must not inherit from an older one instead.

    From there on, nothing is known of that session.
    """
    recording, chance = record("0.5.23", "sessions-random", 1), random.Random(3)
    cutter, columns, ledgers = Cutter(recording, SOURCE), Columns(recording), Ledgers("0.5.23")
    whole, law = everything(recording), "session"
    before = {path: said(whole, ledgers(columns, path)) for path in ("observed", "sglang==0.5.23")}
    broken = _broken(columns, ledgers(columns, "observed"), law)
    for _ in range(6):
        requests = np.array([chance.random() < 0.7 for _ in recording.rids])
        made = cut(cutter, requests, whole.event >= 0)
        now = Columns(made.recording)
        for path, values in before.items():
            computed = said(made, ledgers(now, path))
            assert computed.items() <= values.items(), path
        assert _broken(now, ledgers(now, "observed"), law) <= broken


@pytest.mark.skipif(not EVERYTHING, reason="only if all releases are tested")
def test_a_chunk_whose_extend_is_left_out_decides_nothing(record: RigRecorder) -> None:
    """No finish is decided inside a prompt. Without the extend, that cannot be known."""
    recording, chance = record("0.5.23", "chunked", 1), random.Random(1)
    cutter, whole = Cutter(recording, SOURCE), everything(recording)
    values = said(whole, observed(Columns(recording)))
    for number in range(60):
        made = cut(cutter, whole.requests, some_events(recording, chance))
        computed = said(made, observed(Columns(made.recording)))
        assert computed.items() <= values.items(), f"cut {number}"


def _broken(columns: Columns, ledger: Ledger, name: str) -> int:
    return next(made.num_broken for made in check(columns, ledger) if made.law.name == name)


def test_a_cut_that_leaves_out_nothing_is_the_same_recording() -> None:
    recording = bundled_recording("0.5.12-merge-filter")
    made = cut(Cutter(recording, SOURCE), *_all(recording)).recording
    assert made.derived[-1].requests_left_out == 0 and made.has_every_request
    for name in ("events", "filters", "launches", "results", "result_rows", "finishes"):
        for column in getattr(recording, name).__slots__:
            now, was = (getattr(getattr(r, name), column).tolist() for r in (made, recording))
            assert now == was, f"{name}.{column}"
    assert made.tokens.tolist() == recording.tokens.tolist()


def test_batch_values_are_absent_if_requests_are_left_out() -> None:
    recording = bundled_recording("0.5.10-random")
    requests, events = _all(recording)
    requests[::2] = False
    made = cut(Cutter(recording, SOURCE), requests, events).recording
    assert not made.has_every_request and made.derived[-1].requests_left_out == 40
    assert not made.gaps.dropped.size  # nothing that a kept request did is missing
    for table, column in (
        ("launches", "seq_lens_sum"),
        ("filters", "device_sum"),
        ("results", "batch_accepted_drafts"),
    ):
        assert (getattr(getattr(recording, table), column) != NONE64).any()
        assert (getattr(getattr(made, table), column) == NONE64).all()
    left = made.filters.num_rows
    # The remaining requests: the events before each filter tell which of them were in the batch.
    assert members_before(made)[Kind.FILTER].known.all()
    assert ((left <= made.filters.size_before) & (made.filters.size_before > 0)).all()
    assert (left == 0).any() and (left < made.filters.size_before).any()


def test_each_stretch_of_left_out_events_becomes_a_gap() -> None:
    recording = bundled_recording("0.5.12-stale-retract")
    requests, events = _all(recording)
    events[[0, 1, 10, 11, 12, -1]] = False
    made = cut(Cutter(recording, SOURCE), requests, events).recording
    assert made.gaps.dropped.tolist() == [2, 3, 1]
    assert np.flatnonzero(made.events.kind == Kind.GAP).tolist() == [
        0,
        9,
        len(made.events.kind) - 1,
    ]
    again = cut(Cutter(made, SOURCE), *_all(made)).recording
    assert again.gaps.dropped.tolist() == [2, 3, 1]


def _all(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    return np.ones(len(recording.rids), dtype=bool), np.ones(len(recording.events.kind), dtype=bool)


_NUMBERS = st.sampled_from((NONE64, -1, 0, 1, 2, 7, 1 << 40))
_PLACES = st.lists(st.tuples(_NUMBERS, st.integers(0, 12)), max_size=20)


@given(_PLACES, _PLACES)
def test_a_number_changes_with_each_split_of_it_so_far(
    splits: list[tuple[int, int]], asked: list[tuple[int, int]]
) -> None:
    (number, since), (numbers, event) = (
        np.array(pairs, dtype=np.int64).reshape(-1, 2).T for pairs in (splits, asked)
    )
    times = [sum(one == n and at <= e for one, at in splits) for n, e in asked]
    found = _Split(number, since)(numbers, event)
    assert found.dtype == np.int64
    assert found.tolist() == [n + k * _SPLIT_OFFSET for (n, _), k in zip(asked, times, strict=True)]


def test_parting_scales_to_a_million_merges() -> None:
    """With as many merges as a server has in some days.

    A pairwise comparison would take a terabyte.
    """
    size = 1_000_000
    places = np.arange(size)
    parted = _Split(places // 2, places)(places // 2, places)
    assert parted.tolist() == (places // 2 + (1 + places % 2) * _SPLIT_OFFSET).tolist()
