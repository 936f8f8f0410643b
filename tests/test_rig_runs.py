"""Several seeded runs in one scheduler: each equals the run of its seed, moved in time. And which requests an abort hits."""

from __future__ import annotations

from typing import Any

import pytest

from specdiff.fixtures.rig.errors import RigError
from specdiff.fixtures.rig.scenarios import find_scenario
from specdiff.fixtures.rig.script import RequestScript, Scenario
from specdiff.fixtures.rig.seeded_runs import DRAIN_STEPS, find_runs, later
from specdiff.fixtures.rig.tokens import token
from specdiff.fixtures.rig.truth import Answer, check_answers

RUNS = 4


def test_one_run_is_the_scenario_itself() -> None:
    assert find_runs("random", 7, None, 1) == find_scenario("random", 7, None)
    assert find_runs("stale-stop", 2, 5, 1) == find_scenario("stale-stop", 2, 5)


@pytest.mark.parametrize("name", ["random", "stale-retract", "sessions-random"])
def test_each_run_equals_that_of_its_seed_moved_to_after_the_run_before(name: str) -> None:
    whole, after = find_runs(name, 7, None, RUNS), 0
    for seed in range(7, 7 + RUNS):
        alone = find_scenario(name, seed, None)
        rids = {request.rid for request in alone.requests}
        played = [request for request in whole.requests if request.rid in rids]
        moved = played[0].arrival - alone.requests[0].arrival
        assert moved == after
        assert [_steps(r, 0 if r.follows else moved) for r in alone.requests] == [
            _steps(r, 0) for r in played
        ]
        assert {step + moved for step in alone.retract_at} <= whole.retract_at
        after = max(request.arrival for request in played) + DRAIN_STEPS
    assert len(whole.requests) == RUNS * len(alone.requests)


def _steps(request: RequestScript, moved: int) -> tuple[object, ...]:
    at = (request.arrival, request.abort_at, request.retract_at)
    shifted = [None if step is None else step + moved for step in at]
    return (request.rid, request.max_new_tokens, request.prompt, *shifted)


def test_every_step_of_a_script_is_moved() -> None:
    script = RequestScript("a", arrival=1, abort_at=9, retract_at=5)
    assert _steps(later(script, 100), 0)[-3:] == (101, 109, 105)


def test_the_step_limit_has_the_margins_of_all_runs() -> None:
    def margin(scenario: Scenario) -> int:
        return scenario.step_limit - max(request.arrival for request in scenario.requests) - 200

    alone = [find_scenario("random", seed, None) for seed in range(1, 1 + RUNS)]
    assert margin(find_runs("random", 1, None, RUNS)) == sum(map(margin, alone))


def test_no_runs_are_refused() -> None:
    with pytest.raises(RigError, match="--runs is 0, expected 1 or more"):
        find_runs("random", 1, None, 0)


def test_an_abort_reaches_every_rid_that_begins_with_its_own() -> None:
    """sglang aborts the same requests: `req.rid.startswith(recv_req.rid)`."""
    one = RequestScript("r-1", max_new_tokens=6, abort_at=2)
    ten = RequestScript("r-10", max_new_tokens=6)
    other = RequestScript("r-2", max_new_tokens=6)

    def answer(rid: str) -> Answer:
        return Answer(rid, [token(rid, 0)], {"type": "abort"})

    both = Scenario("both", (one, ten)).requests
    check_answers(both, {"r-1": answer("r-1"), "r-10": answer("r-10")})
    with pytest.raises(RigError, match="1 of 2 answers are wrong"):
        check_answers((one, other), {"r-1": answer("r-1"), "r-2": answer("r-2")})
    with pytest.raises(RigError, match="1 of 1 answers are wrong"):
        check_answers((ten,), {"r-10": answer("r-10")})
    check_answers((ten, other), {rid: answer(rid) for rid in ("r-10", "r-2")}, all_aborted=True)


@pytest.mark.parametrize("name", ["flush_at", "weights_at", "continue_at", "abort_all_at"])
def test_the_step_limit_is_beyond_the_last_act_of_the_trainer(name: str) -> None:
    late: dict[str, Any] = {name: frozenset({5000})}
    requests = find_scenario("random", 0, 1).requests
    assert Scenario("late", requests, **late).step_limit > 5000
