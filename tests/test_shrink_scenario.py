"""Shrinking a scenario by playing its parts: which parts there are, and that the result is minimal."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from children import EVERYTHING, specdiff
from specdiff.cli.inputs import bundled
from specdiff.cli.main import DIFFERS, NO_VERDICT, SAME, USAGE, run
from specdiff.fixtures.rig import shrink_scenario as shrink_module
from specdiff.fixtures.rig.reduce import (
    TimedAction,
    cycles,
    part,
    plainer,
    renamed,
    simpler,
    timed_actions,
)
from specdiff.fixtures.rig.reenact.reenact import reenactment
from specdiff.fixtures.rig.script import RequestScript, Scenario
from specdiff.fixtures.rig.shrink_scenario import (
    ScenarioShrinkProgress,
    ShrunkScenario,
    Trials,
    shrink_scenario,
)
from specdiff.fixtures.rig.written import read_scenario
from specdiff.recorders import hdf5
from specdiff.recorders.errors import NoVerdictError
from specdiff.recorders.schema import Kind
from specdiff.replay.bisect import play_pool
from specdiff.replay.bisect.play_pool import Player, PlayPool
from specdiff.replay.bisect.play_result import PlayResult
from specdiff.replay.laws.check_one import law_of
from specdiff.replay.laws.law import Breach, LawOutcome, State
from specdiff.replay.shrink.breach import broken
from specdiff.replay.spec import parse

INCIDENT = bundled() / "0.5.23-new-weights.h5"
ALONE = bundled().parent / "scenarios/tokens-of-the-old-weights.toml"
# Has pauses, and prompts that share their beginning.
PAUSED = reenactment(hdf5.load(INCIDENT), "incident").scenario
# Has aborts and retracts.
MIX = reenactment(hdf5.load(bundled() / "0.5.23-random.h5"), "mix").scenario


@settings(deadline=None)
@given(st.data(), st.sampled_from([PAUSED, MIX]))
def test_a_part_of_a_scenario_holds_exactly_the_chosen_requests_and_actions(
    data: st.DataObject, whole: Scenario
) -> None:
    """Everything from a pause to its end is kept or dropped together, so each part can be played."""
    all_of_it = timed_actions(whole)
    groups = cycles(all_of_it)
    assert sorted(one for group in groups for one in group) == sorted(all_of_it)
    kept = data.draw(st.lists(st.sampled_from(groups), unique=True))
    rids = data.draw(st.sets(st.sampled_from([one.rid for one in whole.requests]), min_size=1))
    left = {one for group in kept for one in group}
    made = part(whole, rids, left)
    assert made is not None
    assert {one.rid for one in made.requests} == rids
    assert set(timed_actions(made)) == {one for one in left if not one.rid or one.rid in rids}
    for request in made.requests:
        (before,) = (one for one in whole.requests if one.rid == request.rid)
        shared = request.shared if request.shared else before.shared
        assert replace(request, shared=shared, abort_at=before.abort_at) == before


def test_the_forced_retract_of_one_request_can_be_left_out() -> None:
    requests = (replace(PAUSED.requests[0], retract_at=3), *PAUSED.requests[1:])
    whole = replace(PAUSED, requests=requests)
    assert TimedAction(3, "retract_at", "r1-0") in timed_actions(whole)
    assert part(whole, [one.rid for one in requests], timed_actions(PAUSED)) == PAUSED


def test_requests_are_tried_again_once_others_have_become_simpler() -> None:
    """Here two requests are needed until one of them has the simplest prompt."""

    def breaks(scenario: Scenario) -> bool:
        return len(scenario.requests) >= 2 or scenario.requests[0].prompt_len == 8

    made = shrink_scenario(PAUSED, _Oracle(breaks), lambda _: None)
    assert len(made.scenario.requests) == 1


def test_a_part_that_could_not_be_played_is_none() -> None:
    pauses = [one for one in timed_actions(PAUSED) if one.name == "pause_at"]
    rids = [one.rid for one in PAUSED.requests]
    assert part(PAUSED, rids, pauses) is None  # pauses that never end
    assert part(PAUSED, (), ()) is None
    sessions = read_scenario(ALONE.parent / "session-hole-alone.toml")
    # a second turn without the first
    assert part(sessions, [sessions.requests[-1].rid], ()) is None


@pytest.mark.parametrize("scenario", [PAUSED, MIX], ids=["paused", "mix"])
def test_simplifying_a_scenario_comes_to_an_end(scenario: Scenario) -> None:
    """Take the first simplification again and again: of a request, of the server's settings, of the names."""
    for ways in (lambda s: simpler(s, 0), lambda s: simpler(s, 7), plainer, renamed):
        now, steps = scenario, 0
        while (following := next(iter(ways(now)), None)) is not None:
            assert following != now
            now, steps = following, steps + 1
            assert steps < 40
        assert list(ways(now)) == []


class _Oracle(Trials):
    """Trials that play nothing: `breaks` decides whether a scenario breaks the law."""

    def __init__(
        self,
        breaks: Callable[[Scenario], bool],
        state: Callable[[Scenario], State] = lambda _: State.BROKEN,
    ) -> None:
        super().__init__(parse("sglang==0.5.23"), law_of("weights"), Path())  # type: ignore[arg-type]
        self._breaks, self._state = breaks, state

    def prefetch(self, scenario: Scenario) -> None:
        pass

    def outcome(self, scenario: Scenario) -> LawOutcome:
        breach = Breach(5, Kind.WEIGHT_SPAN, 1, 0, "x", "mislabelled_tokens", 3, 0, 0)
        if self._breaks(scenario):
            state = self._state(scenario)
            known = "on purpose" if state is State.KNOWN else None
            return LawOutcome(law_of("weights"), state, 9, 1, breach, known=known)
        return LawOutcome(law_of("weights"), State.HOLDS, 9, 0, None)


def _needs(scenario: Scenario, rids: set[str], needed: set[TimedAction]) -> bool:
    return rids <= {one.rid for one in scenario.requests} and needed <= set(timed_actions(scenario))


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_exactly_the_needed_requests_and_actions_are_left(data: st.DataObject) -> None:
    """Hypothesis picks requests and actions that the breach needs. Nothing else may be left."""
    rids = data.draw(st.sets(st.sampled_from([one.rid for one in PAUSED.requests]), max_size=3))
    groups = data.draw(
        st.lists(st.sampled_from(cycles(timed_actions(PAUSED))), max_size=2, unique=True)
    )
    needed = {data.draw(st.sampled_from(group)) for group in groups}
    rids |= {one.rid for one in needed if one.rid}
    made = shrink_scenario(
        PAUSED, _Oracle(lambda scenario: _needs(scenario, rids, needed)), lambda _: None
    )
    assert len(made.scenario.requests) == max(1, len(rids))
    assert len({one.rid for one in made.scenario.requests} & rids) == len(rids)
    left = set(timed_actions(made.scenario))
    assert needed <= left
    for one in left - needed:  # only the end of a needed pause, without which it cannot be played
        less = part(made.scenario, [r.rid for r in made.scenario.requests], left - {one})
        assert less is None
    assert made.before == ScenarioShrinkProgress(
        0, len(PAUSED.requests), len(timed_actions(PAUSED))
    )
    assert (made.left.num_requests, made.left.num_actions) == (max(1, len(rids)), len(left))


def test_what_is_left_has_defaults_wherever_possible() -> None:
    """The one request that is left has default values, and so has the server."""
    made = shrink_scenario(
        PAUSED, _Oracle(lambda scenario: scenario.requests[0].max_new_tokens > 9), lambda _: None
    )
    (request,) = made.scenario.requests
    assert request.rid == "a"
    assert 10 <= request.max_new_tokens < 20 and request.prompt_len == 8 and not request.shared
    assert not made.scenario.settings and not made.scenario.capture_experts
    assert made.scenario.pool_tokens == 4096 and not timed_actions(made.scenario)


ROWS = RequestScript(
    "a",
    arrival=14,
    prompt_len=32,
    max_new_tokens=18,
    accept=(4,),
    return_routed_experts=True,
    routed_experts_start_len=19,
)


@pytest.mark.parametrize("abort_at", [None, 20])
def test_a_start_and_an_arrival_that_the_breach_does_not_need_are_not_left(
    abort_at: int | None,
) -> None:
    """They would point a reader at a bug of starts, or of when something arrives."""
    whole = Scenario("rows", (replace(ROWS, abort_at=abort_at),), capture_experts=True)

    def breaks(scenario: Scenario) -> bool:
        (one,) = scenario.requests
        wait = None if abort_at is None or one.abort_at is None else one.abort_at - one.arrival
        aborts = abort_at is None or wait == 6  # an abort counts from the arrival
        return one.return_routed_experts and one.max_new_tokens > 9 and aborts

    made = shrink_scenario(whole, _Oracle(breaks), lambda _: None).scenario
    assert made == shrink_scenario(whole, _Oracle(breaks), lambda _: None).scenario
    (request,) = made.requests
    assert (request.routed_experts_start_len, request.arrival, request.prompt_len) == (0, 0, 8)
    assert request.abort_at == (None if abort_at is None else 6)
    assert request.return_routed_experts


def test_a_start_that_the_breach_needs_is_left_with_a_short_prompt() -> None:
    whole = Scenario("rows", (ROWS,), capture_experts=True)

    def breaks(scenario: Scenario) -> bool:
        return scenario.requests[0].routed_experts_start_len > 0

    (request,) = shrink_scenario(whole, _Oracle(breaks), lambda _: None).scenario.requests
    assert (request.routed_experts_start_len, request.arrival, request.prompt_len) == (8, 0, 8)


def test_ctrl_c_returns_the_smallest_scenario_found_so_far() -> None:
    told: list[ScenarioShrinkProgress] = []

    def breaks(scenario: Scenario) -> bool:
        if len(told) == 3:
            raise KeyboardInterrupt
        return len(scenario.requests) >= 2

    made: ShrunkScenario = shrink_scenario(PAUSED, _Oracle(breaks), told.append)
    assert made.interrupted and 2 <= len(made.scenario.requests) == told[-1].num_requests < 24


def test_a_scenario_that_breaks_no_law_is_not_shrunk() -> None:
    with pytest.raises(NoVerdictError, match="the law is not broken when the scenario is played"):
        shrink_scenario(PAUSED, _Oracle(lambda _: False), lambda _: None)


def test_a_known_violation_does_not_count_as_a_breach() -> None:
    """A whole that is one is not shrunk, and a part that became one does not show the breach."""
    known = State.KNOWN
    with pytest.raises(NoVerdictError, match="9 places checked, 1 known violations"):
        shrink_scenario(PAUSED, _Oracle(lambda _: True, lambda _: known), lambda _: None)
    broken_with = [one.rid for one in PAUSED.requests][3]

    def state(scenario: Scenario) -> State:
        return State.BROKEN if broken_with in {r.rid for r in scenario.requests} else known

    made = shrink_scenario(PAUSED, _Oracle(lambda _: True, state), lambda _: None)
    assert [one.rid for one in made.scenario.requests] == [broken_with]


@pytest.mark.live
def test_a_real_scheduler_plays_each_part_once(tmp_path: Path) -> None:
    """A part that it cannot play does not show the breach."""
    whole = read_scenario(ALONE)
    trials = Trials(parse("sglang==0.5.23"), law_of("weights"), tmp_path)  # type: ignore[arg-type]
    idle = part(whole, ["a"], [one for one in timed_actions(whole) if one.name != "weights_at"])
    huge = replace(whole, requests=(replace(whole.requests[0], accept=(1,), stop_at=0),))
    assert idle is not None
    with closing(trials):
        trials.prefetch(idle)
        outcome = trials.outcome(whole)
        trials.prefetch(huge)
        assert isinstance(outcome, LawOutcome) and outcome.state is State.BROKEN
        trials.symptom = broken(outcome)
        assert trials.shows(whole) and not trials.shows(idle) and not trials.shows(huge)
        assert trials.num_plays == 3


def _part(name: str) -> Scenario:
    return replace(PAUSED, requests=tuple(replace(one, rid=name) for one in PAUSED.requests[:1]))


@pytest.mark.parametrize("num_cores", [1, 2])
def test_the_next_part_plays_in_parallel_if_there_are_two_cores(
    num_cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part is played once."""
    began: list[str] = []
    both = threading.Barrier(2, timeout=20)

    def play(self: PlayPool, scenario: Path, player: Player, folder: Path) -> PlayResult:
        began.append(name := read_scenario(scenario).requests[0].rid)
        if num_cores > 1 and name in "ab":
            both.wait()  # neither ends before the other has begun
        return PlayResult((), "nobody plays here")

    monkeypatch.setattr(PlayPool, "_play", play)
    for module in (play_pool, shrink_module):
        monkeypatch.setattr(module, "cores", lambda: num_cores)
    whose = parse("sglang==0.5.23")
    with closing(Trials(whose, law_of("weights"), tmp_path)) as trials:  # type: ignore[arg-type]
        for asked, following in (("a", "b"), ("c", "d"), ("b", "e")):
            trials.prefetch(_part(following))
            assert trials.outcome(_part(asked)) == "nobody plays here"
    played = [name for name in began if name in "abc"]
    assert sorted(began[:2]) == ["a", "b"] if num_cores > 1 else began == ["a", "c", "b"]
    assert sorted(played) == ["a", "b", "c"] and trials.num_plays == 3


@pytest.mark.parametrize(
    ("source", "more", "code", "says"),
    [
        ("[[request]]\nrid = 'a'", ["--law", "weights"], USAGE, "--path sglang==VERSION"),
        (ALONE, ["--law", "weights", "--path", "observed"], USAGE, "expected sglang==VERSION"),
        (INCIDENT, [], USAGE, "Name it with --law NAME."),
        (
            INCIDENT,
            ["--law", "weights", "--keep-tokens"],
            USAGE,
            "--keep-tokens can only be used with -o *.h5",
        ),
        (bundled() / "0.5.14-session-hole.h5", ["--law", "session"], NO_VERDICT, "sessions"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_played(
    source: Path | str,
    more: list[str],
    code: int,
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of the files does not name the release in which the bug showed."""
    monkeypatch.setattr(Trials, "outcome", None)
    if isinstance(source, str):
        (tmp_path / "x.toml").write_text(source)
        source = tmp_path / "x.toml"
    target = tmp_path / "small.toml"
    assert run(["shrink", str(source), "-o", str(target), *more]) == code
    assert says in capsys.readouterr().err and not target.exists()


@pytest.mark.live
@pytest.mark.skipif(not EVERYTHING, reason="slow: set SPECDIFF_TEST_ALL_RELEASES")
def test_a_recorded_incident_shrinks_to_a_scenario_of_a_few_lines(tmp_path: Path) -> None:
    small, incident = tmp_path / "small.toml", tmp_path / "incident.h5"
    shutil.copy(INCIDENT, incident)
    done = specdiff("shrink", incident, "--law", "weights", "-o", small)
    assert done.returncode == SAME and "1 of 24 requests, 1 of 37 timed actions" in done.stdout
    assert len(small.read_text().splitlines()) < 15
    assert read_scenario(small).sglang == "0.5.23"
    again = specdiff("history", small, "--law", "weights", "--from", "sglang==0.5.22")
    assert again.returncode == DIFFERS and "2 break the law" in again.stdout


def test_renaming_requests_changes_nothing_else() -> None:
    """Shared beginnings of prompts, the order of turns and `-eosN` in names are kept."""
    (made,) = renamed(PAUSED)
    assert [one.rid for one in made.requests[:3]] == ["a", "b", "c"] and len(made.requests) == 24
    for before, after in zip(PAUSED.requests, made.requests, strict=True):
        assert replace(after, rid=before.rid, shared=before.shared) == before
        assert [piece[1:] for piece in after.shared] == [piece[1:] for piece in before.shared]
    assert any(one.shared for one in made.requests)
    turns = read_scenario(ALONE.parent / "session-hole-alone.toml")
    ends = replace(turns.requests[0], rid="text-eos7", session="", follows="", close_at=None)
    (other,) = renamed(replace(turns, requests=(ends, *turns.requests)))
    assert [one.rid for one in other.requests][:2] == ["a-eos7", "b"]
    assert [one.follows for one in other.requests[1:]] == ["", "b"][: len(turns.requests)]
