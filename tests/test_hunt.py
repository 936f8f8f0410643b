"""The hunt itself: it finds an existing bug and nothing else, and its scenarios can be played."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from arena import Arena, PlayedBlock, Stopped
from children import EVERYTHING, rig
from hunt_play import SERVERS, HuntPlay
from lifting import files_of, write_tree
from recorded import record
from specdiff.fixtures.rig.release import find_release
from specdiff.fixtures.rig.script import RequestScript
from specdiff.fixtures.rig.written import read_scenario, write_scenario
from specdiff.recorders import hdf5
from specdiff.recorders.build import build
from specdiff.replay.columns.shared import Columns
from specdiff.replay.laws.check import check
from specdiff.replay.laws.law import State
from specdiff.replay.observed import observed

HUNT = Path(__file__).parent / "hunt.py"
NEWEST = "0.5.23"


def hunt(out: Path, release: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HUNT), "--release", release, "--out", str(out), "--seed", "7"]
    command += ["--seeds", "1", "--minutes", "30", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not EVERYTHING, reason="half a minute: only if all releases are tested")
@pytest.mark.live
def test_the_hunt_finds_nothing_if_nothing_is_wrong(tmp_path: Path) -> None:
    options = ("--examples", "12", "--servers", "tight", "pages of 64", "--silence", "session")
    done = hunt(tmp_path, NEWEST, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing found" in done.stdout and "stale-finished" in done.stdout
    assert "tight " in done.stdout and "pages of 64 " in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not EVERYTHING, reason="a minute and a half: only if all releases are tested")
@pytest.mark.live
def test_a_known_bug_is_found_shrunk_and_written_as_a_scenario_that_shows_it(
    tmp_path: Path,
) -> None:
    """docs/findings/session-inherits-unwritten-kv.md shows it with three requests."""
    options = ("--examples", "400", "--servers", "roomy", "--shrink-minutes", "1")
    done = hunt(tmp_path, NEWEST, *options)
    assert done.returncode == 1, done.stdout + done.stderr
    (path,) = tmp_path.glob("*.toml")
    assert len(read_scenario(path).requests) <= 4
    text = path.with_suffix(".txt").read_text()
    assert text.startswith("law session") and "shows the same" in text
    columns = Columns(hdf5.load(path.with_suffix(".h5")))
    broken = [law for law in check(columns, observed(columns)) if law.state is State.BROKEN]
    assert [outcome.law.name for outcome in broken] == ["session"]


@pytest.mark.live
def test_a_broken_copy_of_the_release_is_found(tmp_path: Path) -> None:
    """Stale results of retracted requests are rare.

    A hunt that never retracts would find nothing.
    """
    place = "srt/managers/scheduler_components/batch_result_processor.py"
    files = files_of(NEWEST)
    guard = "if req.is_retracted or req.finished():"
    assert files[place].count(guard) == 1
    files[place] = files[place].replace(guard, "if req.finished():")
    tree = write_tree(tmp_path / "tree", files)
    options = ("--servers", "roomy", "--silence", "session", "--no-shrink", "--examples", "400")
    done = hunt(tmp_path / "out", NEWEST, "--against", str(tree), *options)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "lifted and observed differ in kv_committed_len" in done.stdout
    (recording,) = map(hdf5.load, (tmp_path / "out").glob("*.h5"))
    assert (recording.result_rows.is_retracted == 1).any()


@pytest.mark.skipif(not EVERYTHING, reason="half a minute: only if all releases are tested")
@pytest.mark.live
def test_a_play_and_its_written_scenario_run_identically(tmp_path: Path) -> None:
    play = HuntPlay(PRIORITY, Arena(NEWEST, tmp_path / "arena", PRIORITY.server_args()))
    _act(play)
    told = play.end()
    assert isinstance(told, PlayedBlock), told
    played = build(told.journal)
    path = tmp_path / "play.toml"
    path.write_text(write_scenario(play.scenario()))
    again, _ = record(tmp_path / "again", rig(NEWEST, str(path)))
    assert played.rids == again.rids and played.events.kind.tolist() == again.events.kind.tolist()
    assert played.events.iteration.tolist() == again.events.iteration.tolist()
    assert played.result_rows.accept_len.tolist() == again.result_rows.accept_len.tolist()
    assert played.finishes.finished_len.tolist() == again.finishes.finished_len.tolist()
    assert played.saves.committed.tolist() == again.saves.committed.tolist()
    assert len(played.retracts.qid) and len(played.aborts.qid) and len(played.restores.qid)


PRIORITY = next(server for server in SERVERS if server.name == "priority")


def _act(play: HuntPlay) -> None:
    """Play turns of two sessions, a queue, a forced retract, an abort, a preemption and a flush."""
    play.ask(RequestScript("a", prompt_len=20, max_new_tokens=20, session="s"))
    play.ask(RequestScript("b", prompt_len=9, max_new_tokens=6, session="t", accept=(3,)))
    play.ask(RequestScript("c", prompt_len=12, max_new_tokens=30, priority=1))
    play.step(4)
    play.retract()
    play.step(6)
    play.ask(RequestScript("d", prompt_len=40, max_new_tokens=60, priority=2))
    play.abort("c")
    while play.waiting:
        play.step(5)
    # b was answered before a, so the rig enters b's next turn first.
    play.ask(RequestScript("e", prompt_len=4, session="s", max_new_tokens=9))
    play.ask(RequestScript("f", prompt_len=5, session="t", return_routed_experts=True))
    play.ask(RequestScript("g", prompt_len=4, max_new_tokens=2))
    play.step(2)
    play.close("t")
    while play.waiting:
        play.step(5)
    play.close("s")
    play.step(3)
    play.control("flush")
    play.step(6)


@pytest.mark.live
def test_after_a_crash_the_next_play_starts_with_a_working_scheduler(
    tmp_path: Path,
) -> None:
    """docs/findings/retracted-turn-of-one-token.md"""
    arena = Arena(NEWEST, tmp_path / "arena", SERVERS[0].server_args())
    for prompt, expected in ((1, Stopped), (2, PlayedBlock)):
        play = HuntPlay(SERVERS[0], arena)
        play.ask(RequestScript("a", prompt_len=prompt, max_new_tokens=3))
        play.ask(RequestScript("b", prompt_len=prompt, max_new_tokens=2, session="s"))
        play.step(1)
        play.retract()
        told = play.step(8)
        assert isinstance(told, expected), told
        if isinstance(told, Stopped):
            assert "a reused row must carry allocated KV" in told.why
            assert told.journal is not None and len(build(told.journal).retracts.qid) == 1


def test_servers_that_a_release_does_not_support_are_left_out() -> None:
    names = {server.name for server in SERVERS if not server.runs_on(find_release("0.5.12"))}
    assert names == {"topk 4", "tree on pages"}
