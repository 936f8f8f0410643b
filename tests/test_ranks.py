"""DP attention, recorded live: two schedulers that step together, and the idle batches that one runs for the other."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lifting import against_observed, compiled, release
from recorded import RigRecorder
from specdiff.fixtures.rig.drive import IDLE_TURNS, is_over
from specdiff.fixtures.rig.errors import RigError
from specdiff.fixtures.rig.rank_processes import NOT_YET, RigRank, play_ranks
from specdiff.fixtures.rig.script import RequestScript, Scenario
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import Kind, Mode
from specdiff.replay.columns.shared import Columns
from specdiff.replay.diff import diff
from specdiff.replay.exercised import exercised
from specdiff.replay.explain import Toggles
from specdiff.replay.laws.check import check
from specdiff.replay.laws.law import State
from specdiff.replay.observed import observed
from specdiff.replay.quantity import Quantity as Q
from test_fidelity import fixes_of

RELEASE = "0.5.23"
REACHED = ("launch-idle-amid-decodes", "stale-finished-many", "retract", "merge", "abort-running")


@pytest.fixture(scope="module")
def ranks(record: RigRecorder) -> list[Recording]:
    return record.ranks(RELEASE, "dp-random", 1, "--requests", "60")


def test_each_dp_rank_has_its_own_recording_and_the_ranks_step_together(
    ranks: list[Recording],
) -> None:
    runs = [recording.run for recording in ranks]
    assert [(run.dp_rank, run.dp_size, run.tp_rank, run.tp_size) for run in runs] == [
        (0, 2, 0, 2),
        (1, 2, 1, 2),
    ]
    assert runs[0].run_id == runs[1].run_id
    modes = [recording.launches.mode.tolist() for recording in ranks]
    together = {frozenset(pair) for pair in zip(*modes, strict=True)}
    assert frozenset({Mode.IDLE, Mode.EXTEND}) in together
    # With speculation, a rank without a prefill waits for the rank that has one.
    assert frozenset({Mode.DECODE, Mode.EXTEND}) not in together
    assert frozenset({Mode.IDLE}) not in together


def test_an_idle_batch_is_a_launch_without_requests_and_without_a_result(
    ranks: list[Recording],
) -> None:
    for recording in ranks:
        launches, events = recording.launches, recording.events
        idle = launches.mode == Mode.IDLE
        assert idle.sum() > 10
        assert not launches.num_rows[idle].any() and launches.num_rows[~idle].all()
        assert not launches.seq_lens_sum[idle].any()  # 0, not absent
        assert recording.results.launch.tolist() == launches.launch[~idle].tolist()
        # sglang counts an idle batch as a forward, too.
        counted = events.iteration[events.kind == Kind.LAUNCH]
        assert counted.tolist() == list(range(counted[0], counted[0] + len(counted)))


def test_the_books_go_on_across_idle_batches(ranks: list[Recording]) -> None:
    reached = [exercised(recording) for recording in ranks]
    assert all(sum(one[branch] for one in reached) for branch in REACHED)
    for recording in ranks:
        columns = Columns(recording)
        with release(RELEASE) as source:
            lifted = against_observed(recording, compiled(source))
        rules = {
            one.quantity: one
            for one in diff(recording, observed(columns), Toggles(columns)(fixes_of(RELEASE)))
        }
        for found in (lifted, rules):
            assert not any(difference.differs.any() for difference in found.values())
            for quantity in (Q.KV_COMMITTED_LEN, Q.SEQ_LENS_SUM, Q.SPEC_VERIFY_CT):
                assert found[quantity].num_compared == len(found[quantity].old.cells) > 100
        states = {one.law.name: one.state for one in check(columns, observed(columns))}
        assert State.BROKEN not in states.values()
        assert states["commit"] is states["sums"] is states["stale"] is State.HOLDS


def test_the_ranks_stop_in_the_same_step() -> None:
    """If a rank stopped earlier, the other one would wait for it forever."""
    assert not is_over([3, NOT_YET], 90)
    assert not is_over([3, 40], 40 + IDLE_TURNS - 1)
    assert is_over([3, 40], 40 + IDLE_TURNS)


def test_a_rank_that_fails_ends_the_others() -> None:
    """The others would wait for it, because sglang's ranks gather from each other at every step."""
    child = "import os, time; os.environ['SPECDIFF_RIG_RANK'] == '1' and exit(3); time.sleep(60)"
    begin = time.monotonic()
    with pytest.raises(RigError, match="rank 1 of 2 exited with status 3"):
        play_ranks(2, [sys.executable, "-c", child])
    assert time.monotonic() - begin < 30


def test_ranks_see_each_others_last_answers(tmp_path: Path) -> None:
    (tmp_path / "answers").write_bytes(bytes(16))
    mine, theirs = (RigRank(rank, tmp_path).last_answers() for rank in range(2))
    mine[1] = 7
    assert list(theirs) == [0, 7]


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ({"num_ranks": 1}, "'b' goes to rank 1, expected 0 to 0"),
        ({"num_ranks": 2, "session": "s"}, "the rig cannot play sessions on several ranks"),
    ],
)
def test_a_scenario_with_an_unknown_rank_or_sessions_on_several_ranks_is_refused(
    scenario: dict[str, Any], said: str
) -> None:
    second = RequestScript("b", rank=1, session=scenario.pop("session", ""))
    with pytest.raises(RigError, match=said):
        Scenario("ranks", (RequestScript("a"), second), **scenario)
