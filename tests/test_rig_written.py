"""Scenarios written in TOML: reading, writing, mistakes, and the bundled reports before and after their fix."""

from __future__ import annotations

import copy
import datetime
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from children import on_demand
from recorded import RigRecorder
from specdiff.fixtures.rig.__main__ import main
from specdiff.fixtures.rig.errors import RigError
from specdiff.fixtures.rig.play import release_of
from specdiff.fixtures.rig.release import RELEASES
from specdiff.fixtures.rig.script import RequestOptions, RequestScript, Scenario
from specdiff.fixtures.rig.written import read_scenario, write_scenario
from specdiff.recorders.recording import Recording
from specdiff.replay.columns.shared import Columns
from specdiff.replay.explain import Toggles
from specdiff.replay.laws.check import check
from specdiff.replay.laws.law import LawOutcome
from specdiff.replay.spec import Observed
from specdiff.replay.verdict import ledger_of

REPORTS = Path(__file__).parent.parent / "fixtures" / "scenarios"


@pytest.mark.parametrize(
    ("report", "law", "before", "after", "found", "expected"),
    [
        *on_demand(
            ("26126-trailing-rows", "rows", "0.5.12", "0.5.13", 23, 20),
            ("22651-overshoot-inherited", "session", "0.5.10", "0.5.11", 32, 30),
            ("23456-stale-after-retract", "stale", "0.5.11", "0.5.12", 2, 0),
            ("downswitch-short-of-a-slot", "room", "0.5.12", "0.5.13", 18, 17),
        ),
    ],
)
def test_an_upstream_report_breaks_its_law_before_the_fix_and_not_after(
    report: str, law: str, before: str, after: str, found: int, expected: int, record: RigRecorder
) -> None:
    scenario = str(REPORTS / f"{report}.toml")
    assert release_of(scenario) == before
    broken = _law(record(before, scenario, 0), law)
    assert broken.first is not None
    assert (broken.first.found, broken.first.high) == (found, expected)
    fixed = _law(record(after, scenario, 0), law)
    assert fixed.num_checked and not fixed.num_broken


def _law(recording: Recording, name: str) -> LawOutcome:
    columns = Columns(recording)
    outcomes = check(columns, ledger_of(columns, Toggles(columns), Observed()))
    return next(outcome for outcome in outcomes if outcome.law.name == name)


@pytest.mark.parametrize("path", sorted(REPORTS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_bundled_scenario_can_be_read(path: Path) -> None:
    scenario = read_scenario(path)
    assert scenario.name == path.stem and scenario.requests and scenario.sglang


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no [[request]]"),
        ("request = = 3", "not a scenario"),
        (
            "sglang = '0.4'\n[[request]]\nrid = 'a'",
            "sglang: found the text '0.4', expected one of 0.5.9",
        ),
        ("[request]\nrid = 'a'", "request: found a table, expected a list of tables"),
        ("request = [3]", "request[0]: found 3, expected a table"),
        ("[[request]]\nprompt_len = 3", "request[0].rid: found nothing, expected a text in quotes"),
        ("{a}arival = 3", "request[0].arival: unknown key. Did you mean 'arrival'?"),
        ("retracts = [1]\n{a}", "retracts: unknown key. Did you mean 'retract_at'?"),
        (
            "{a}prompt_len = 'eight'",
            "request[0].prompt_len: found the text 'eight', expected a whole number",
        ),
        ("{a}prompt_len = 8.5", "request[0].prompt_len: found 8.5, expected a whole number"),
        ("{a}arrival = true", "request[0].arrival: found true, expected a whole number"),
        ("{a}ignore_eos = 1", "request[0].ignore_eos: found 1, expected true or false"),
        ("{a}accept = 4", "request[0].accept: found 4, expected a list of whole numbers"),
        (
            "{a}accept = [4, '1']",
            "request[0].accept[1]: found the text '1', expected a whole number",
        ),
        ("{a}shared = [3]", "request[0].shared[0]: found 3, expected a list of 3"),
        ("{a}shared = [['b', 0]]", "request[0].shared[0]: found a list of 2, expected a list of 3"),
        (
            "{a}shared = [['prompt:b', 0, 4]]",
            "request[0].shared (rid 'a'): found prompt:b, expected the RID of a request",
        ),
        ("{a}options = 3", "request[0].options: found 3, expected a table"),
        (
            "{a}[request.options]\nsteam = true",
            "request[0].options.steam: unknown key. Did you mean 'stream'?",
        ),
        (
            "{a}[request.wishes]\nstream = true",
            "request[0].wishes: unknown key. Known keys: abort_at, accept, ",
        ),
        ("{a}accept = [9]", "request[0].accept (rid 'a'): found (9,), expected runs of 1 to 4"),
        ("{a}arrival = -1", "request[0].arrival (rid 'a'): found -1, expected 0 or more"),
        ("{a}stop_at = -1", "request[0].stop_at (rid 'a'): found -1, expected 0 or more"),
        ("{a}prompt_len = 0", "request[0].prompt_len (rid 'a'): found 0, expected 1 or more"),
        (
            "{a}arrival = 3\nabort_at = 2",
            "request[0].abort_at (rid 'a'): found 2, expected the arrival step",
        ),
        ("[[request]]\nrid = ''", "request[0].rid (rid ''): found empty"),
        ("retract_at = [-4]\n{a}", "retract_at: found -4, expected steps of 0 or more"),
        ("flush_at = [2, -1]\n{a}", "flush_at: found -1, expected steps of 0 or more"),
        ("pause_at = [3]\n{a}", "continue_at: found nothing, expected 3 or later"),
        (
            "pause_retract_at = [9]\npause_at = [3]\ncontinue_at = [8]\n{a}",
            "continue_at: found 8, expected 9 or later",
        ),
        ("pool_tokens = 0\n{a}", "pool_tokens: found 0, expected 1 or more"),
        (
            "conservativeness = nan\n{a}",
            "conservativeness: found nan, expected a finite number above 0",
        ),
        ("settings = 3\n{a}", "settings: found 3, expected a table"),
        ("{a}{a}", "rids used twice: a"),
        (
            "{a}session = 's'\n[[request]]\nrid = 'b'\nsession = 's'\nfollows = 'aa'",
            "request[1].follows: found the text 'aa', expected the rid of a request before it; did you mean 'a'?",
        ),
    ],
)
def test_a_mistake_in_a_scenario_is_named_by_file_and_key(
    text: str, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text.replace("{a}", "[[request]]\nrid = 'a'\n"))
    with pytest.raises(RigError, match=re.escape(says)) as caught:
        read_scenario(path)
    assert str(caught.value).startswith(f"{path}: ")


WHOLE: dict[str, Any] = {
    "retract_at": [4],
    "flush_at": [3],
    "pause_at": [2],
    "continue_at": [3],
    "pool_tokens": 512,
    "max_running": 4,
    "conservativeness": 0.5,
    "capture_experts": True,
    "settings": {"chunked_prefill_size": 64},
    "request": [
        {
            "rid": "a",
            "arrival": 1,
            "prompt_len": 9,
            "accept": [4, 1],
            "abort_at": 9,
            "session": "s",
        },
        {"rid": "b", "stop_at": 3, "ignore_eos": True, "session": "s", "follows": "a"},
        {
            "rid": "c",
            "shared": [["prompt:a", 0, 4]],
            "options": {"stop_texts": ["t"], "stream": True},
        },
    ],
}
_scalars = st.one_of(
    st.integers(-3, 9),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.text("abs", max_size=3),
    st.dates(),
)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab(.", max_size=2), inner),
    max_leaves=4,
)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return str(value) if isinstance(value, (float, datetime.date)) else json.dumps(value)


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return every key path below a value."""
    inside = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [place for key, one in inside for place in ((*at, key), *_places(one, (*at, key)))]


@given(st.data())
def test_any_value_anywhere_is_either_read_as_its_type_or_refused_with_the_file_name(
    data: st.DataObject,
) -> None:
    raw = copy.deepcopy(WHOLE)
    for _ in range(data.draw(st.integers(1, 2))):
        *above, key = data.draw(st.sampled_from(_places(raw) or [("request",)]))
        inside = raw
        for name in above:
            inside = inside[name]
        act = data.draw(st.sampled_from(["put", "drop", "add"]))
        if act == "drop":
            del inside[key]
        else:
            where = f"{key}x" if act == "add" and isinstance(inside, dict) else key
            inside[where] = data.draw(_values)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.toml"
        path.write_text(
            "".join(f"{json.dumps(key)} = {_toml(value)}\n" for key, value in raw.items())
        )
        try:
            scenario = read_scenario(path)
        except RigError as error:
            assert str(error).startswith(f"{path}: ")
            return
    steps = [*scenario.retract_at, *scenario.pause_at, *scenario.continue_at, *scenario.flush_at]
    steps += [scenario.pool_tokens, scenario.max_running]
    for request in scenario.requests:
        steps += [request.arrival, request.prompt_len, *request.accept]
        steps += [step for step in (request.stop_at, request.abort_at) if step is not None]
        assert type(request.rid) is type(request.session) is type(request.follows) is str
        assert type(request.ignore_eos) is bool and type(request.accept) is tuple
    assert all(type(step) is int and step >= 0 for step in steps)
    assert scenario.conservativeness > 0 and isinstance(scenario.settings, dict)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--seed", "3"], "--seed has no effect with"),
        (["--runs", "2"], "--runs has no effect with"),
        (["--requests", "2"], "--requests has no effect with"),
        (["--paused"], "--paused has no effect with"),
        (["--port", "3"], "--port has no effect without --serve"),
        (["--serve", "--events", "x"], "--events has no effect with --serve"),
    ],
)
def test_an_option_that_would_be_ignored_is_a_usage_error(flags: list[str], says: str) -> None:
    scenario = str(REPORTS / "26126-trailing-rows.toml")
    done = CliRunner().invoke(main, ["--sglang", "0.5.12", "--scenario", scenario, *flags])
    assert done.exit_code == 2 and says in done.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["x.journal"], "not a scenario name (see --list), a TOML file (*.toml) or a recording"),
        (["random", "--events", "nowhere/x"], "the folder nowhere does not exist"),
        (["random", "--result", "nowhere/x"], "the folder nowhere does not exist"),
        (["random", "--topk", "4", "--algorithm", "DFLASH"], "drafts a block, not a tree"),
    ],
)
def test_a_command_that_cannot_work_is_refused_before_anything_is_played(
    arguments: list[str], says: str
) -> None:
    done = CliRunner().invoke(main, ["--sglang", "0.5.23", "--scenario", *arguments])
    assert done.exit_code == 1 and says in done.output


def test_a_setting_that_the_release_does_not_have_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("settings = {'chunked_prefill_sise' = 32}\n[[request]]\nrid = 'a'")
    done = CliRunner().invoke(main, ["--sglang", "0.5.12", "--scenario", str(path)])
    assert done.exit_code == 1
    assert (
        "settings.chunked_prefill_sise: sglang 0.5.12 has no such ServerArgs field" in done.output
    )


_rids = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=5)
_maybe = st.none() | st.integers(5, 9)


@st.composite
def _scenarios(draw: st.DrawFn) -> Scenario:
    rids = draw(st.lists(_rids, min_size=1, max_size=3, unique=True))
    return Scenario(
        "x",
        tuple(_request(draw, rid) for rid in rids),
        sglang=draw(st.sampled_from(["", *RELEASES])),
        retract_at=draw(st.frozensets(st.integers(0, 9))),
        flush_at=draw(st.frozensets(st.integers(0, 9))),
        pause_at=draw(st.frozensets(st.integers(0, 9))),
        pause_retract_at=draw(st.frozensets(st.integers(0, 9))),
        continue_at=draw(st.frozensets(st.integers(0, 9))) | {9},
        abort_all_at=draw(st.frozensets(st.integers(0, 9))),
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
        shared=draw(st.sampled_from([(), ((f"prompt:{rid}", 0, 1),)])),
        options=RequestOptions(
            stop_texts=tuple(draw(st.lists(_rids, max_size=2))), stream=draw(st.booleans())
        ),
    )


def test_rarely_used_options_are_a_table_of_the_request(tmp_path: Path) -> None:
    text = '[[request]]\nrid = "a"\n[request.options]\nstop_texts = ["t0020"]\nstream = true\n'
    (tmp_path / "x.toml").write_text(text)
    scenario = read_scenario(tmp_path / "x.toml")
    options = RequestOptions(stop_texts=("t0020",), stream=True)
    assert scenario.requests[0].options == options
    assert write_scenario(scenario) == text


@given(_scenarios())
def test_a_written_scenario_reads_back_equal(scenario: Scenario) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.toml"
        path.write_text(write_scenario(scenario), encoding="utf-8")
        assert read_scenario(path) == scenario
