"""The rig: its script is a pure function, scenarios are validated, and a live scheduler gives the answers it expects."""

from __future__ import annotations

import importlib
import importlib.machinery
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specdiff.fixtures.rig.capture_rows import NUM_EXPERTS, topk_rows
from specdiff.fixtures.rig.ends import lengths_allowed, stop_position
from specdiff.fixtures.rig.errors import RigError
from specdiff.fixtures.rig.postimport import PostImportFinder
from specdiff.fixtures.rig.release import Release, find_release
from specdiff.fixtures.rig.scenarios import SCENARIOS, find_scenario
from specdiff.fixtures.rig.script import RequestScript, Scenario
from specdiff.fixtures.rig.speculation import Speculation
from specdiff.fixtures.rig.tokens import FIRST_TOKEN, NUM_DRAFT_TOKENS, VOCAB_SIZE, accepted, token
from specdiff.fixtures.rig.truth import Answer, check_answers, find_error

rids = st.text("abcxyz-0123456789", min_size=1, max_size=12)
positions = st.integers(0, 500)


@given(rids, positions)
def test_tokens_and_runs_stay_in_range(rid: str, position: int) -> None:
    assert FIRST_TOKEN <= token(rid, position) < VOCAB_SIZE
    assert 1 <= accepted(rid, position) <= NUM_DRAFT_TOKENS
    assert accepted(rid, position, (2, 3)) == (2, 3)[position % 2]


def test_the_hashes_of_the_script_never_change() -> None:
    """The bundled recordings were made with these values. With another hash, nobody could explain them."""
    assert [token("r0-0", p) for p in range(4)] == [1438, 826, 323, 403]
    assert [accepted("r0-0", p) for p in range(8)] == [3, 1, 4, 2, 4, 4, 1, 4]


def test_runs_of_every_length_are_equally_likely() -> None:
    runs = [accepted(f"r{i}", p) for i in range(40) for p in range(100)]
    for length in range(1, NUM_DRAFT_TOKENS + 1):
        assert 0.2 < runs.count(length) / len(runs) < 0.3


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"prefix_len": 8}, "0 <= prefix_len < prompt_len"),
        ({"routed_experts_start_len": 9}, "0 <= start <= prompt_len"),
        ({"max_new_tokens": -1}, "0 or more"),
        ({"accept": (4, 0)}, "runs of 1 token or more"),
        ({"shared": (("b", 0, 8),), "prefix_len": 2}, "nothing together with prefix_len"),
        ({"shared": (("b", 3, 3),)}, "0 <= first < end"),
        ({"shared": (("b", 0, 5), ("b", 2, 6))}, "at most prompt_len (8) tokens"),
        ({"arrival": 3, "abort_at": 2}, "the arrival step or later"),
    ],
)
def test_an_impossible_request_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(RigError, match="request 'a'") as caught:
        replace(RequestScript("a"), **wrong)  # type: ignore[arg-type]
    assert said in str(caught.value)


def test_an_impossible_scenario_is_refused() -> None:
    one = RequestScript("a")
    with pytest.raises(RigError, match="no requests"):
        Scenario("empty", ())
    with pytest.raises(RigError, match="rids used twice: a"):
        Scenario("twice", (one, one))
    with pytest.raises(RigError, match=r"request\[1\].accept \(rid 'b'\).*runs of 1 to 3"):
        Scenario("runs", (one, RequestScript("b", accept=(4,))), num_draft_tokens=3)
    with pytest.raises(RigError, match="capture_experts is False"):
        Scenario("experts", (replace(one, return_routed_experts=True),))


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_is_a_function_of_its_seed(name: str) -> None:
    assert find_scenario(name, 3, None) == find_scenario(name, 3, None)
    assert len(find_scenario(name, 3, 5).requests) == 5


def test_an_unknown_scenario_is_refused_by_name() -> None:
    with pytest.raises(RigError, match=r"no scenario 'nope'.*stale-stop"):
        find_scenario("nope", 0, None)


def test_an_unknown_release_is_refused_by_name() -> None:
    with pytest.raises(RigError, match=r"0\.5\.99 is not a release the rig knows"):
        find_release("0.5.99")


@pytest.mark.parametrize(
    ("version", "algorithm", "topk", "since"),
    [
        ("0.5.13.post1", "DFLASH", 1, "0.5.14"),
        ("0.5.13", "NGRAM", 4, "0.5.14"),
        ("0.5.15.post1", "DSPARK", 1, "0.5.16"),
        ("0.5.12.post1", "EAGLE", 2, "0.5.13"),
    ],
)
def test_options_that_a_release_runs_as_spec_v1_are_refused(
    version: str, algorithm: str, topk: int, since: str
) -> None:
    Speculation(algorithm, topk).check(Release(since, Path()))
    with pytest.raises(RigError, match=f"which came with {since}"):
        Speculation(algorithm, topk).check(Release(version, Path()))


@given(rids, st.integers(1, 40), st.integers(0, 40), st.booleans())
def test_a_request_stops_at_the_first_token_with_the_stop_id(
    rid: str, limit: int, stop_at: int, deaf: bool
) -> None:
    request = RequestScript(rid, max_new_tokens=limit, stop_at=stop_at, ignore_eos=deaf)
    stop = stop_position(request)
    asked = token(rid, stop_at)
    first = next((p for p in range(limit) if token(rid, p) == asked), None)
    assert stop == (None if deaf else first)
    assert all(1 <= length <= limit for length in lengths_allowed(request))


def _answer(request: RequestScript, count: int) -> Answer:
    ids = [token(request.rid, p) for p in range(count)]
    return Answer(request.rid, ids, {"type": "length"})


def test_the_truth_check_accepts_right_answers_and_names_wrong_ones() -> None:
    request = RequestScript("a", prompt_len=4, max_new_tokens=6)
    assert find_error(request, _answer(request, 6)) is None
    assert "5 tokens, expected 6" in str(find_error(request, _answer(request, 5)))
    assert "never finished" in str(find_error(request, Answer("a")))
    wrong = _answer(request, 6)
    wrong.output_ids[3] += 1
    assert "token 3" in str(find_error(request, wrong))
    with pytest.raises(RigError, match="1 of 1 answers are wrong"):
        check_answers((request,), {})


def test_captured_rows_of_another_position_are_caught() -> None:
    request = RequestScript("a", prompt_len=4, max_new_tokens=6)
    whole = request.prompt + [token("a", p) for p in range(6)]
    good = topk_rows(range(9), whole[:9])
    assert good.max() < NUM_EXPERTS
    answer = _answer(request, 6)
    answer.routed_experts = good.tolist()
    assert find_error(request, answer) is None
    answer.routed_experts = topk_rows(range(1, 10), whole[:9]).tolist()
    assert "not those of its tokens" in str(find_error(request, answer))


class _AsksAllOthers:
    """A post-import finder like those of other packages: it asks every finder except itself."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "colorsys":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(name, path, target) for finder in others)
        return next((spec for spec in found if spec is not None), None)


@pytest.mark.parametrize("first", [True, False])
def test_the_patching_finder_works_with_a_finder_that_asks_all_others(
    first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    patched: list[str] = []
    ours = PostImportFinder({"colorsys": lambda module: patched.append(module.__name__)})
    pair = [ours, _AsksAllOthers()] if first else [_AsksAllOthers(), ours]
    monkeypatch.setattr(sys, "meta_path", [*pair, *sys.meta_path])
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    importlib.import_module("colorsys")
    assert patched == ["colorsys"]


@pytest.mark.live
def test_clients_of_a_live_scheduler_get_what_the_script_says(tmp_path: Path) -> None:
    events = tmp_path / "answers.jsonl"
    command = [sys.executable, "-m", "specdiff.fixtures.rig", "--sglang", "0.5.23"]
    command += ["--scenario", "random", "--seed", "7", "--requests", "120", "--events", str(events)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "120 requests" in done.stderr
    answers = [Answer(**json.loads(line)) for line in events.read_text().splitlines()]
    requests = {r.rid: r for r in find_scenario("random", 7, 120).requests}
    assert [find_error(requests[a.rid], a) for a in answers] == [None] * 120
    assert any(a.retractions for a in answers) and any(a.cached_tokens for a in answers)
    assert any(a.aborted and not a.output_ids for a in answers)
    asked = [a for a in answers if requests[a.rid].return_routed_experts and not a.aborted]
    assert asked and all(a.routed_experts is not None for a in asked)
