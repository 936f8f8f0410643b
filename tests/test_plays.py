"""Plays of a scenario: they are judged only if they finished, and they end with specdiff."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from children import SPECDIFF, wait_for
from patched import NAME, patched_tree
from specdiff.cli.inputs import bundled
from specdiff.fixtures.rig import __main__ as rig_main
from specdiff.fixtures.rig import inprocess
from specdiff.fixtures.rig.drive import ScenarioRun
from specdiff.recorders import hdf5
from specdiff.recorders.errors import NoVerdictError
from specdiff.replay.bisect import play_pool
from specdiff.replay.bisect.judge import Finding
from specdiff.replay.bisect.law_judge import LawJudge
from specdiff.replay.bisect.play_pool import Player, PlayPool
from specdiff.replay.bisect.play_result import PlayResult, complete, why
from specdiff.replay.bisect.plays import Plays
from specdiff.replay.laws.check_one import check_law, law_of
from specdiff.replay.played import outcome
from specdiff.replay.spec import Lifted, Observed, Origin

MIX = bundled() / "0.5.10-random.h5"
WEIGHTS = bundled().parent / "scenarios" / "tokens-of-the-old-weights.toml"


class _Kept(Plays):
    """Plays that return given recordings, by the name of the release."""

    def __init__(self, **recordings: PlayResult) -> None:
        self.recordings = recordings

    def __call__(self, player: Player) -> PlayResult:
        return self.recordings[player.code]


def judged(**played: PlayResult) -> list[Any]:
    judge = LawJudge(law_of("rows"), _Kept(**played))
    return [judge(Lifted(f"sglang=={name}", Origin.RELEASE, name)) for name in played]


def test_the_worst_of_several_schedulers_decides() -> None:
    """One breach decides. Otherwise a scheduler that keeps the law decides over one that did not exercise it."""
    names = ("0.5.13-experts-overshoot", "0.5.12-experts-overshoot", "0.5.11-stale-retract")
    holds, breaks, idle = (bundled() / f"{name}.h5" for name in names)
    alone = [
        check_law(law_of("rows"), hdf5.load(path), Observed()) for path in (holds, breaks, idle)
    ]
    assert [one.state.value for one in alone] == ["holds", "broken", "not exercised"]
    both, kept, nothing, failed = judged(
        both=PlayResult((holds, breaks, idle)),
        kept=PlayResult((idle, holds)),
        nothing=PlayResult((idle,)),
        failed=PlayResult((holds,), "it stopped"),
    )
    assert both.finding is Finding.BAD and both.outcome.first == alone[1].first
    assert both.outcome.num_checked == sum(one.num_checked for one in alone)
    assert both.outcome.num_broken == alone[1].num_broken
    assert kept.finding is Finding.GOOD
    assert nothing.finding is Finding.SKIPPED and "not captured" in nothing.why
    assert failed.finding is Finding.SKIPPED and failed.why == "it stopped"


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("", "it ended without a message"),
        ("rig: to begin with\nspecdiff: not recorded\n", "to begin with"),
        ("Usage: rig\n\nError: No such option: --x\n", "Error: No such option: --x"),
        (
            "rig: to begin with\nrig: 2 packages\nRun: pip\nspecdiff: nothing\n",
            "2 packages\nRun: pip",
        ),
        (
            "rig: to begin with\nTraceback (most recent call last):\n  x\nKeyError: 'y'\nspecdiff: z\n",
            "KeyError: 'y'",
        ),
        ("Segmentation fault\nspecdiff: nothing was recorded\n", "Segmentation fault"),
    ],
)
def test_the_reason_of_a_failed_play_is_the_last_message_of_the_rig(told: str, said: str) -> None:
    assert why(told, ended_well=False) == said


def test_the_reason_that_nothing_was_recorded_is_the_message_of_specdiff() -> None:
    told = "rig: 9 requests\nspecdiff: not recorded: no site for 'process'\n"
    assert why(told, ended_well=True) == "not recorded: no site for 'process'"


def test_a_recording_that_is_not_whole_is_not_judged(tmp_path: Path) -> None:
    """The law may be broken in the part that was cut off, dropped, or lost to an exception."""
    whole = hdf5.load(bundled() / "0.5.13-experts-overshoot.h5")
    assert whole.stats is not None
    others = {
        "killed": replace(whole, stats=None),
        "open": replace(whole, stats=replace(whole.stats, closed=False)),
        "dropped": replace(whole, stats=replace(whole.stats, dropped=1)),
        "failed": replace(whole, stats=replace(whole.stats, exceptions=1)),
        "damaged": replace(whole, damage="the journal's end was lost"),
    }
    played = {}
    for name, recording in others.items():
        hdf5.save(recording, tmp_path / f"{name}.h5")
        played[name] = PlayResult((tmp_path / f"{name}.h5",))
    for one in judged(**played):
        assert one.finding is Finding.SKIPPED and "incomplete" in one.why, one.path
    (good,) = judged(
        whole=PlayResult((bundled() / "0.5.13-experts-overshoot.h5",), None, ("r1: x", "y"))
    )
    assert good.finding is Finding.GOOD
    assert good.why == "ended differently: r1: x (and 1 more)"


def test_a_play_counts_only_if_the_rig_finished_and_every_scheduler_was_recorded(
    tmp_path: Path,
) -> None:
    """The rig finished if it wrote its result file. An exit status of 0 alone is not enough."""
    made, result = tmp_path / "made", tmp_path / "result"
    made.mkdir()
    shutil.copy(MIX, made / "one.h5")
    told = "rig: 80 requests\nspecdiff: rank 1 was not recorded\n"
    assert complete(made, result, told).why == "80 requests"
    result.write_text('{"recorded": 2, "unexpected": null}')
    assert complete(made, result, told).why == (
        "1 of 2 schedulers were recorded: rank 1 was not recorded"
    )
    made.mkdir()  # a single recording was moved up
    (tmp_path / "made.h5").rename(made / "one.h5")
    result.write_text('{"recorded": 1, "unexpected": ["r1: abort at 5 tokens"]}')
    finished = complete(made, result, told)
    assert finished.why is None and finished.ended_differently == ("r1: abort at 5 tokens",)


@pytest.mark.live
def test_a_scheduler_that_exits_in_the_middle_is_not_judged(tmp_path: Path) -> None:
    """It exits with status 0 while requests are still running."""
    tree = patched_tree(tmp_path / "sglang", "0.5.23")
    text = (tree / NAME).read_text()
    place = "        # Flush async trace ops here"
    assert text.count(place) == 1
    leaves = "        if self.forward_ct > 6:\n            os._exit(0)\n"
    (tree / NAME).write_text(text.replace(place, leaves + place))
    with pytest.raises(NoVerdictError, match="cannot be played on"):
        outcome(WEIGHTS, str(tree), "commit")


@pytest.mark.live
def test_wrong_answers_are_written_to_the_result_file_if_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A law may be about such answers, so a judged play goes on. Without a result file, or on a rank, it fails."""
    nobody_answered = ScenarioRun({}, 9, 0.1, 4)
    monkeypatch.setattr(inprocess, "run_scenario", lambda *_, **__: nobody_answered)
    monkeypatch.setattr(rig_main, "require_packages", lambda: None)
    result = tmp_path / "result.json"
    play = ["--scenario", str(WEIGHTS)]  # this file names its release

    def code(*more: str) -> int:
        return CliRunner().invoke(rig_main.main, [*play, *more]).exit_code

    assert code() == 1
    assert code("--result", str(result)) == 0
    said = json.loads(result.read_text())
    assert said["recorded"] == 1 and "1 of 1 answers are wrong" in said["unexpected"][0]
    result.unlink()
    (tmp_path / "answers").write_bytes(bytes(8))
    monkeypatch.setenv("SPECDIFF_RIG_RANK", "0")
    monkeypatch.setenv("SPECDIFF_RIG_RENDEZVOUS", str(tmp_path))
    assert code("--result", str(result)) == 1 and not result.exists()


@pytest.mark.live
def test_the_error_says_why_nothing_was_recorded(tmp_path: Path) -> None:
    """The rig finished, but the recorder had nothing to record."""
    scenario = tmp_path / "x.toml"
    scenario.write_text('overlap = false\n[[request]]\nrid = "a"\n')
    with pytest.raises(NoVerdictError, match="overlap scheduling is off"):
        outcome(scenario, "sglang==0.5.11", "rows")


def test_a_process_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play_pool, "_GRACE_S", 0.2)
    stays = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", stays], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "1\n"
        process.terminate()
        play_pool._wait_or_kill(process)
        assert process.returncode == -signal.SIGKILL


@pytest.mark.live
def test_sigterm_to_specdiff_ends_its_plays_and_removes_its_folders(tmp_path: Path) -> None:
    """`timeout` and CI send SIGTERM. No process and no folder is left."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [*SPECDIFF, "history", str(MIX), "--law", "rows", "--from", "sglang==0.5.22"]
    with subprocess.Popen(command, env={**os.environ, "TMPDIR": str(temporary)}) as process:
        wait_for(lambda: _of_this(temporary), "a play")
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert not _of_this(temporary)
    assert not list(temporary.glob("specdiff-????????*"))


def _of_this(temporary: Path) -> list[str]:
    """Return the command lines of rig processes that use this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # the process has ended
            said = path.read_bytes().replace(b"\0", b" ").decode()
            if "specdiff.fixtures.rig --sglang" in said and str(temporary) in said:
                found.append(said)
    return found


@pytest.mark.live
def test_a_running_play_is_ended_when_it_is_not_needed_or_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing the pool ends its plays, and so does its time limit."""
    release = Player("0.5.13", "sglang-0.5.13", "0.5.13", lambda _: None)
    house = PlayPool()
    plays = Plays(MIX, tmp_path, house)
    waiting = threading.Thread(target=lambda: answers.append(plays(release)))
    answers: list[PlayResult] = []
    waiting.start()
    wait_for(lambda: house._running, "a play")
    (process,) = house._running
    house.close()
    waiting.join(30)
    assert process.returncode not in (None, 0) and answers[0].why
    monkeypatch.setattr(play_pool, "_TIMEOUT_S", 0.1)
    with closing(PlayPool()) as late:
        assert "took longer" in (Plays(MIX, tmp_path / "late", late)(release).why or "")
