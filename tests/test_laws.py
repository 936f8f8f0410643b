"""Laws: broken exactly where the history of the fixes says, and seen to break wherever a book is falsified."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from lifting import bundled_recording
from specdiff.cli.main import run
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import NONE32, NONE64
from specdiff.replay import spec
from specdiff.replay.columns.shared import Columns
from specdiff.replay.explain import Toggles
from specdiff.replay.laws.check import LAWS, check
from specdiff.replay.laws.law import Outcome, State
from specdiff.replay.verdict import ledger_of

OLD, NEW = "0.5.10-random", "0.5.23-random"
BROKEN = {
    "0.5.10-random": {"rows", "trainer", "stale", "sums"},
    "0.5.11-stale-retract": {"stale", "sums"},
    "0.5.12-stale-retract": {"sums"},
    "0.5.12-experts-overshoot": {"rows", "trainer", "sums"},
    "0.5.12-merge-filter": {"sums"},
    "0.5.13-merge-filter": set(),
    "0.5.13-experts-overshoot": set(),
    "0.5.23-random": set(),
}
UNEXERCISED = {"session"}  # nobody has one in these


@pytest.mark.parametrize("name", BROKEN)
def test_laws_are_broken_where_history_says(name: str) -> None:
    assert _broken(_outcomes(bundled_recording(name))) == BROKEN[name]


def test_every_other_law_is_exercised() -> None:
    for name in (OLD, NEW):
        idle = {o.law.name for o in _outcomes(bundled_recording(name)) if not o.num_checked}
        assert idle == UNEXERCISED


def test_a_path_mends_what_its_fixes_mend() -> None:
    recording = bundled_recording(OLD)
    assert _broken(_outcomes(recording, "old")) == BROKEN[OLD]
    assert _broken(_outcomes(recording, "old+23456")) == BROKEN[OLD] - {"stale"}
    assert _broken(_outcomes(recording, "fixed")) == set()
    assert _broken(_outcomes(recording, "sglang==0.5.23")) == set()
    assert _broken(_outcomes(bundled_recording(NEW), "old")) == BROKEN[OLD]


def _live(recording: Recording) -> NDArray[np.bool_]:
    rows = recording.result_rows
    live: NDArray[np.bool_] = (rows.finished == 0) & (rows.is_retracted == 0)
    return live & _decode(recording)


def _stale(recording: Recording) -> NDArray[np.bool_]:
    return _decode(recording) & ~_live(recording)


def _decode(recording: Recording) -> NDArray[np.bool_]:
    decode: NDArray[np.bool_] = recording.result_rows.accept_len != NONE32
    return decode


def _asked(recording: Recording) -> NDArray[np.bool_]:
    finishes = recording.finishes
    asked: NDArray[np.bool_] = (finishes.return_routed_experts == 1) & (finishes.experts_rows > 0)
    return asked


def _all(recording: Recording, table: str) -> NDArray[np.bool_]:
    size = len(dataclasses.astuple(getattr(recording, table))[0])
    return np.ones(size, dtype=bool)


@dataclasses.dataclass(frozen=True)
class Falsified:
    """One value of one observed column changed; `breaks`: the laws that must see it."""

    table: str
    column: str
    where: Callable[[Recording], NDArray[np.bool_]]
    change: Callable[[int], int]
    breaks: frozenset[str]


FALSIFIED = {
    "commit": Falsified(
        "result_rows", "committed_after", _live, lambda v: v + 1, frozenset({"commit"})
    ),
    "allocation": Falsified(
        "prepare_rows",
        "allocated_after",
        lambda r: _all(r, "prepare_rows"),
        lambda v: 0,
        frozenset({"allocation", "room"}),
    ),
    "rows": Falsified(
        "finishes", "experts_rows", _asked, lambda v: v + 1, frozenset({"rows", "trainer"})
    ),
    "stride": Falsified(
        "results",
        "stride",
        lambda r: r.results.stride != NONE64,
        lambda v: v - 1,
        frozenset({"stride"}),
    ),
    "stale": Falsified(
        "result_rows", "committed_after", _stale, lambda v: v + 1, frozenset({"stale"})
    ),
    "sums": Falsified(
        "launches",
        "seq_lens_sum",
        lambda r: (r.launches.seq_lens_sum != NONE64) & (r.launches.num_rows > 0),
        lambda v: v - 1,
        frozenset({"sums"}),
    ),
    "statistics": Falsified(
        "finishes",
        "histogram_sum",
        lambda r: _all(r, "finishes"),
        lambda v: v + 1,
        frozenset({"statistics"}),
    ),
}


@pytest.mark.parametrize("what", FALSIFIED)
def test_a_falsified_book_breaks_its_law(what: str) -> None:
    falsified, recording = FALSIFIED[what], bundled_recording(NEW)
    table = getattr(recording, falsified.table)
    places = np.flatnonzero(falsified.where(recording))
    row = int(places[len(places) // 2])
    values = getattr(table, falsified.column).copy()
    values[row] = falsified.change(int(values[row]))
    changed = dataclasses.replace(table, **{falsified.column: values})
    found = _outcomes(dataclasses.replace(recording, **{falsified.table: changed}))
    assert _broken(found) == falsified.breaks
    breach = next(o.first for o in found if o.law.name in falsified.breaks)
    assert breach is not None and str(breach.found) != breach.expected


def test_every_law_is_falsified_here_or_known() -> None:
    seen = set().union(*(falsified.breaks for falsified in FALSIFIED.values()))
    assert {law.name for law in LAWS if not law.known} <= seen | {"session"}


def test_known_violations_are_reported_and_not_judged() -> None:
    found = {o.law.name: o for o in _outcomes(bundled_recording(NEW))}["batch-accepted"]
    assert found.state is State.KNOWN and found.num_broken > 0
    assert run(["check", _path(NEW)]) == 0


def test_a_silenced_law_is_shown_and_not_judged() -> None:
    columns = Columns(bundled_recording(OLD))
    ledger = ledger_of(columns, Toggles(columns), spec.parse("observed"))
    found = check(columns, ledger, silenced={"stale"})
    assert {o.law.name: o.state for o in found}["stale"] is State.SILENCED
    assert _broken(found) == BROKEN[OLD] - {"stale"}


def test_the_command_judges(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", _path(OLD)]) == 1
    said = capsys.readouterr().out
    assert "4 of" in said and "expected" in said and "#23456" in said
    assert run(["check", _path(OLD), "--path", "fixed"]) == 0


def _path(name: str) -> str:
    from specdiff.cli.inputs import bundled

    return str(bundled() / f"{name}.h5")


def _outcomes(recording: Recording, path: str = "observed") -> tuple[Outcome, ...]:
    columns = Columns(recording)
    return check(columns, ledger_of(columns, Toggles(columns), spec.parse(path)))


def _broken(outcomes: tuple[Outcome, ...]) -> set[str]:
    return {outcome.law.name for outcome in outcomes if outcome.state is State.BROKEN}
