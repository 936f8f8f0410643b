"""Scenarios written by hand: three upstream reports as the sequences they describe, before and after their fix."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorded import Recorder
from specdiff.fixtures.rig.errors import RigError
from specdiff.fixtures.rig.script import RequestScript, Scenario, Wishes
from specdiff.fixtures.rig.written import read_scenario, write_scenario
from specdiff.recorders.recording import Recording
from specdiff.replay.columns.shared import Columns
from specdiff.replay.explain import Toggles
from specdiff.replay.laws.check import check
from specdiff.replay.laws.law import Outcome
from specdiff.replay.spec import Observed
from specdiff.replay.verdict import ledger_of

REPORTS = Path(__file__).parent.parent / "fixtures" / "scenarios"


@pytest.mark.parametrize(
    ("report", "law", "before", "after", "found", "expected"),
    [
        ("22651-overshoot-inherited", "session", "0.5.10", "0.5.11", 32, 30),
        ("23456-stale-after-retract", "stale", "0.5.11", "0.5.12", 2, 0),
        ("26126-trailing-rows", "rows", "0.5.12", "0.5.13", 23, 20),
    ],
)
def test_a_report_shows_before_its_fix_and_not_after(
    report: str, law: str, before: str, after: str, found: int, expected: int, record: Recorder
) -> None:
    scenario = str(REPORTS / f"{report}.toml")
    broken = _law(record(before, scenario, 0), law)
    assert broken.first is not None
    assert (broken.first.found, broken.first.high) == (found, expected)
    mended = _law(record(after, scenario, 0), law)
    assert mended.num_checked and not mended.num_broken


def _law(recording: Recording, name: str) -> Outcome:
    columns = Columns(recording)
    outcomes = check(columns, ledger_of(columns, Toggles(columns), Observed()))
    return next(outcome for outcome in outcomes if outcome.law.name == name)


@pytest.mark.parametrize("path", sorted(REPORTS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_report_reads(path: Path) -> None:
    scenario = read_scenario(path)
    assert scenario.name == path.stem and scenario.requests


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"no \[\[request\]\]"),
        ("[[request]]\nprompt_len = 3", "request 1 has no rid"),
        ("[[request]]\nrid = 'a'\narival = 3", r"request 1 \(a\).*'arival'.*mean 'arrival'"),
        ("retracts = [1]\n[[request]]\nrid = 'a'", "the scenario has a key 'retracts'"),
        ("[[request]]\nrid = 'a'\naccept = [9]", "'a': accept is .*expected runs of 1 to 4"),
        ("[[request]]\nrid = 'a'\n[[request]]\nrid = 'a'", "rids used twice: a"),
        ("request = = 3", "not a scenario"),
    ],
)
def test_a_mistake_is_named(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(RigError, match=says) as caught:
        read_scenario(path)
    assert str(path) in str(caught.value)


_rids = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=5)
_maybe = st.none() | st.integers(5, 9)


@st.composite
def _scenarios(draw: st.DrawFn) -> Scenario:
    rids = draw(st.lists(_rids, min_size=1, max_size=3, unique=True))
    return Scenario(
        "x",
        tuple(_request(draw, rid) for rid in rids),
        retract_at=draw(st.frozensets(st.integers(0, 9))),
        flush_at=draw(st.frozensets(st.integers(0, 9))),
        pool_tokens=draw(st.integers(100, 5000)),
        conservativeness=draw(st.sampled_from([0.05, 1.0])),
        capture_experts=True,
        settings=draw(st.dictionaries(st.sampled_from("ab"), st.integers() | st.booleans())),
    )


def _request(draw: st.DrawFn, rid: str) -> RequestScript:
    return RequestScript(
        rid,
        draw(st.integers(0, 5)),
        draw(st.integers(1, 9)),
        stop_at=draw(_maybe),
        ignore_eos=draw(st.booleans()),
        accept=tuple(draw(st.lists(st.integers(1, 4)))),
        abort_at=draw(_maybe),
        session=(session := draw(st.sampled_from(["", f"of {rid}"]))),
        close_at=draw(_maybe) if session else None,
        priority=draw(_maybe),
        return_routed_experts=draw(st.booleans()),
    )


@given(_scenarios())
def test_what_is_written_reads_as_it_was(scenario: Scenario) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.toml"
        path.write_text(write_scenario(scenario), encoding="utf-8")
        assert read_scenario(path) == scenario


def test_wishes_have_no_key() -> None:
    scenario = Scenario("x", (RequestScript("a", wishes=Wishes(regex=".")),))
    with pytest.raises(RigError, match="wishes of 'a'"):
        write_scenario(scenario)
