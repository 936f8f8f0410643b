"""Lost events: what can no longer be known is not captured, and the rest is right."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gaps import ended, without
from lifting import bundled_recording, compiled, release
from recorded import RigRecorder
from specdiff.cli.inputs import bundled
from specdiff.recorders import hdf5
from specdiff.recorders.schema import NONE32, Kind
from specdiff.replay.columns.engine import ledger
from specdiff.replay.columns.shared import Columns
from specdiff.replay.decisions import LOST, decisions
from specdiff.replay.diff import diff
from specdiff.replay.laws.committed_len import stale
from specdiff.replay.ledger import Ledger
from specdiff.replay.lift.ledger import ledger_of
from specdiff.replay.observed import observed
from specdiff.replay.paths.fixes import ALL, rules_of
from specdiff.replay.quantity import Quantity
from specdiff.replay.spec import FixSet, Observed
from specdiff.replay.verdict import Verdict, replay

EQUAL = {"0.5.10": frozenset[int](), "0.5.23": ALL - {22651}}


ABSENT = {Quantity.INDEXER_TOPK, Quantity.SESSION_COMMITTED}  # these two servers have neither


def ruled(name: str) -> Callable[[Columns], Ledger]:
    return lambda columns: ledger(columns, rules_of(EQUAL[name.partition("-")[0]]), "rules")


def lifted(name: str) -> Callable[[Columns], Ledger]:
    with release(name.partition("-")[0]) as source:
        made = compiled(source)
    return lambda columns: ledger_of(columns, made, "lifted")


@pytest.mark.parametrize("engine", [ruled, lifted])
@pytest.mark.parametrize("name", ["0.5.10-random", "0.5.23-random"])
def test_no_gap_makes_a_true_path_look_wrong(
    name: str, engine: Callable[[str], Callable[[Columns], Ledger]]
) -> None:
    path, chance, books_of = Path(bundled()) / f"{name}.h5", random.Random(5), engine(name)
    recording = hdf5.load(path)
    size, not_captured = len(recording.events.kind), 0
    for _ in range(40 if engine is ruled else 15):
        start = chance.randrange(size - 1)
        cut = without(recording, start, min(size, start + chance.choice((1, 2, 5, 20, 100))))
        columns = Columns(cut)
        computed = books_of(columns)
        for difference in diff(cut, observed(columns), computed):
            assert not difference.differs.any(), f"{difference.quantity}, cut at {start}"
            if difference.quantity not in computed.reasons.keys() | ABSENT:
                not_captured += int(difference.not_captured.sum())
                assert difference.num_compared > 0
    assert not_captured > 500


@pytest.mark.parametrize("name", ["0.5.10-random", "0.5.23-mixed"])
def test_decisions_do_not_depend_on_where_the_recording_ends(name: str) -> None:
    """A decision may be lost, but only if its finish is not in the recording."""
    recording = bundled_recording(name)
    whole, num_lost = decisions(recording), 0
    behind = recording.event_of(Kind.FINISH) + 1  # an extend's finish comes before its result
    for stop in sorted({*behind.tolist(), *range(1, len(recording.events.kind), 10)}):
        cut = ended(recording, stop)
        made = decisions(cut)
        taken, lost = whole.finish[: len(made.row)], made.finish == LOST
        assert np.array_equal(made.row, whole.row[: len(taken)])
        assert np.array_equal(made.finish[~lost], taken[~lost]), f"ended at event {stop}"
        assert not lost[(taken >= 0) & (taken < len(cut.finishes.qid))].any(), f"at event {stop}"
        num_lost += int(lost.sum())
    assert num_lost > 50


@pytest.mark.parametrize("engine", [ruled, lifted])
def test_a_cut_between_a_finish_and_its_result_makes_no_true_path_look_wrong(
    engine: Callable[[str], Callable[[Columns], Ledger]],
) -> None:
    """Results of an extend and of the tails in it.

    Either the recording ends before the result, or the rest of the step is dropped.
    """
    recording, books_of = bundled_recording("0.5.23-mixed"), engine("0.5.23-mixed")
    whole = decisions(recording)
    rows = whole.row[whole.finish >= 0]
    results = recording.event_of(Kind.RESULT)[recording.owner(Kind.RESULT)[rows]]
    finishes = recording.event_of(Kind.FINISH)[whole.finish[whole.finish >= 0]]
    between = [
        (stop + 1, result) for stop, result in zip(finishes, results, strict=True) if stop < result
    ]
    assert len(between) > 3
    for stop, result in between:
        for cut in (ended(recording, stop), without(recording, stop, result + 1)):
            columns = Columns(cut)
            computed = books_of(columns)
            for difference in diff(cut, observed(columns), computed):
                assert not difference.differs.any(), f"{difference.quantity}, ended at {stop}"
                if difference.quantity not in computed.reasons.keys() | ABSENT:
                    assert difference.num_compared > 0


def test_a_lost_result_is_not_blamed_on_the_stale_result_after_it() -> None:
    """The request's counters increased between the two results before it."""
    recording = bundled_recording("0.5.23-random")
    rows = recording.result_rows
    events = recording.event_of(Kind.RESULT)[recording.owner(Kind.RESULT)]
    decode = rows.accept_len != NONE32
    late = decode & ((rows.finished == 1) | (rows.is_retracted == 1))
    num_cut = 0
    for row in np.flatnonzero(late).tolist():
        mine = np.flatnonzero(decode & (rows.qid == rows.qid[row]) & (events < events[row]))
        if len(mine) < 2 or rows.spec_verify_ct[mine[-1]] == rows.spec_verify_ct[mine[-2]]:
            continue
        lost, num_cut = int(events[mine[-1]]), num_cut + 1
        columns = Columns(without(recording, lost, lost + 1))
        places = stale(columns, observed(columns))
        assert bool(places.holds.all())
    assert num_cut > 3


def test_a_recording_of_which_only_a_gap_is_left_gives_no_verdict() -> None:
    recording = bundled_recording("0.5.12-stale-stop")
    assert replay(recording, Observed(), FixSet(ALL)).verdict is Verdict.DIFFERS
    found = replay(without(recording, 0, len(recording.events.kind)), Observed(), FixSet(ALL))
    assert found.verdict is Verdict.NO_VERDICT
    assert not any(made.num_compared for made in found.quantities)


@pytest.mark.live
def test_a_chunk_whose_extend_is_lost_ends_no_request(record: RigRecorder) -> None:
    """The last chunk's result is lost too.

    The first chunk's result could pass for the request's only output, which it is not.
    """
    recording, books_of = record("0.5.23", "chunked-random", 3), lifted("0.5.23")
    rows, owner = recording.extend_rows, recording.owner(Kind.EXTEND)
    extends, num_cut = recording.event_of(Kind.EXTEND), 0
    finishes = recording.event_of(Kind.FINISH)
    for qid, stop in zip(recording.finishes.qid, finishes, strict=True):
        *chunks, _ = extends[owner[rows.qid == qid]]
        if recording.finishes.output_len[recording.finishes.qid == qid] == 1:
            for start in chunks:
                cut = ended(without(recording, start, start + 1), stop + 1)
                columns, num_cut = Columns(cut), num_cut + 1
                for difference in diff(cut, observed(columns), books_of(columns)):
                    assert not difference.differs.any(), f"{difference.quantity}, ended at {stop}"
    assert num_cut > 3
