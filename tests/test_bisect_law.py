"""bisect and history by a law: real schedulers of releases and of a clone's commits play a recording or a scenario."""

from __future__ import annotations

import json
import os
import re
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

from children import SPECDIFF, specdiff, wait_for
from clones import commit, git
from mended import NAME, mended_scheduler, mended_tree
from specdiff.cli.inputs import bundled
from specdiff.cli.main import BROKEN, DIFFERS, NO_VERDICT, SAME, USAGE, run
from specdiff.fixtures.rig import __main__ as rig_main
from specdiff.fixtures.rig import inprocess, requirements
from specdiff.fixtures.rig.drive import Outcome
from specdiff.fixtures.rig.errors import RigError
from specdiff.fixtures.rig.releases import find_release
from specdiff.recorders import hdf5
from specdiff.recorders.errors import NoVerdictError
from specdiff.replay.bisect import playhouse
from specdiff.replay.bisect.by_law import bisect_by_law, history_by_law
from specdiff.replay.bisect.commits import subject
from specdiff.replay.bisect.judge import Finding
from specdiff.replay.bisect.law_court import LawCourt
from specdiff.replay.bisect.play_result import Played, complete, why
from specdiff.replay.bisect.playhouse import Player, Playhouse
from specdiff.replay.bisect.plays import Plays
from specdiff.replay.bisect.trees import release_before, write_out
from specdiff.replay.laws.ask import ask, law_of
from specdiff.replay.laws.law import State
from specdiff.replay.lift.git import NoSourceError, commit_of
from specdiff.replay.played import outcome
from specdiff.replay.spec import Lifted, Observed, Origin

MIX = bundled() / "0.5.10-random.h5"
SCENARIOS = bundled().parent / "scenarios"
WEIGHTS = SCENARIOS / "tokens-of-the-old-weights.toml"
ENDS = ("--good", "sglang==0.5.13", "--bad", "sglang==0.5.12.post1")
COMMITS = ("--good", "sglang@HEAD", "--bad", "sglang@HEAD~3")


@pytest.mark.live
def test_the_release_that_mended_it_is_found(tmp_path: Path) -> None:
    """What a trainer is told of its rows, by the whole scheduler of each; what they recorded is kept."""
    kept = tmp_path / "kept"
    done = specdiff("bisect", MIX, "--law", "trainer", *ENDS, "--keep", kept)
    assert done.returncode == DIFFERS, done.stderr
    assert "mended in: sglang==0.5.13\n" in done.stdout
    recordings = {path.stem.removeprefix("sglang-"): path for path in kept.iterdir()}
    assert sorted(recordings) == ["0.5.12.post1", "0.5.13"]
    found = {
        name: ask(law_of("trainer"), hdf5.load(at), Observed()) for name, at in recordings.items()
    }
    assert found["0.5.13"].num_broken == 0 < found["0.5.12.post1"].num_broken
    for name, made in found.items():
        rows = rf"^sglang=={re.escape(name)} .* {made.num_checked} +{made.num_broken}\b"
        assert re.search(rows, done.stdout, re.MULTILINE)
    (next_one,) = re.findall(r"^Which commit: specdiff (.*)$", done.stdout, re.MULTILINE)
    assert next_one.endswith("--repo CLONE --good sglang@v0.5.13 --bad sglang@v0.5.12.post1")


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release, as a clone has it: nothing built. Then: other words, a scheduler that cannot be imported, and it mended."""
    folder = tmp_path_factory.mktemp("clone")
    built = shutil.ignore_patterns(
        "*.so", "_version.py", "__pycache__", "*.json", "multimodal_gen", "benchmark", "test"
    )
    shutil.copytree(find_release("0.5.23").root / "sglang", folder / "python/sglang", ignore=built)
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder, "as it was")
    (folder / "README.md").write_text("other words")
    commit(folder, "docs")
    scheduler = folder / "python" / NAME
    scheduler.write_text("def half a function\n")
    commit(folder, "half a change")
    scheduler.write_text(mended_scheduler("0.5.23"))
    commit(folder, "pause: wait for the result under way")
    return folder


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.live
def test_the_commit_that_mended_it_is_found(repo: Path, tmp_path: Path) -> None:
    """Commits of one tree play once; of one that cannot play it is said why, and the answer is a range."""
    kept, log = tmp_path / "kept", tmp_path / "log"
    asked: list[str | Path] = ["bisect", WEIGHTS, "--law", "weights", *COMMITS, "--repo", repo]
    done = specdiff(*asked, "--keep", kept, "--log", log, "--format", "json")
    assert done.returncode == DIFFERS
    found = told(done)
    names = [f"sglang@{git(repo, 'rev-parse', f'HEAD~{back}')}" for back in range(4)]
    mended, half, docs, before = names
    by_path = {one["path"]: one for one in found["tested"]}
    assert found["range"] == [half, mended] and found["last_before"] == docs
    assert {name: by_path[name]["verdict"] for name in names} == {
        mended: "good",
        half: "skipped",
        docs: "bad",
        before: "bad",
    }
    assert "SyntaxError" in by_path[half]["why"]
    assert by_path[before]["first"]["request"] == "a" and by_path[before]["broken"] == 1
    assert by_path[mended]["checked"] == by_path[before]["checked"] > 0 == by_path[mended]["broken"]
    assert len(list(kept.iterdir())) == 2  # one for all commits of a tree
    assert git(repo, "status", "--porcelain") == ""
    command = ["git", "-C", str(repo), "bisect", "replay", str(log)]
    replayed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    assert "only 'skip'ped commits left" in replayed
    assert {half[7:], mended[7:]} <= set(replayed.split())
    git(repo, "bisect", "reset")


@pytest.mark.live
def test_the_history_of_a_law() -> None:
    """What cannot be judged is no success."""
    ends = ["--from", "sglang==0.5.18", "--to", "sglang==0.5.19"]
    done = specdiff("history", WEIGHTS, "--law", "weights", *ends)
    assert done.returncode == DIFFERS
    assert re.search(r"^sglang==0.5.18 +skipped .*0.5.19 was the first", done.stdout, re.MULTILINE)
    assert re.search(r"^sglang==0.5.19 +broken +\d+ +1 +step \d+", done.stdout, re.MULTILINE)
    assert "2 versions: 1 break the law, 0 keep it, 1 could not be judged." in done.stdout


@pytest.mark.live
def test_a_scheduler_that_stops_in_the_midst_is_not_judged(tmp_path: Path) -> None:
    """0.5.9 does (docs/findings), and what it recorded up to there keeps the law."""
    stops, ends = SCENARIOS / "paused-in-place-after-a-retract.toml", ["--to", "sglang==0.5.10"]
    done = specdiff("history", stops, "--law", "commit", *ends, "--keep", tmp_path / "kept")
    assert done.returncode == SAME
    assert re.search(r"^sglang==0.5.9 +skipped +ValueError: zip", done.stdout, re.MULTILINE)
    assert re.search(r"^sglang==0.5.10 +holds +\d+ +0$", done.stdout, re.MULTILINE)
    assert sorted(one.name for one in (tmp_path / "kept").iterdir()) == [
        "failed",
        "sglang-0.5.10.h5",
    ]
    (path,) = (tmp_path / "kept/failed/sglang-0.5.9").iterdir()
    left = hdf5.load(path)
    assert ask(law_of("commit"), left, Observed()).state is State.HOLDS


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((MIX, "--law", "nope", *ENDS), USAGE, "no law 'nope'; there are: commit, "),
        ((MIX, "--law", "rows", *ENDS, "--quantity", "finish"), USAGE, "--quantity is for books"),
        ((MIX, "--law", "rows", *ENDS, "--against", "fixed"), USAGE, "--against is for books"),
        ((MIX, *ENDS, "--keep", "here"), USAGE, "--keep is for --law only"),
        ((MIX, "--law", "rows", *ENDS, "--keep", SCENARIOS), BROKEN, "Name a new folder"),
        (("none.toml", "--law", "rows", *ENDS), BROKEN, "none.toml"),
        (("none.H5", "--law", "rows", *ENDS), USAGE, "none.H5: expected a recording (*.h5) or a"),
        (
            (MIX, "--law", "rows", "--good", "sglang==0.5.13", "--bad", "sglang==0.6.0"),
            USAGE,
            "sglang==0.6.0: the rig plays 0.5.9 to 0.5.23",
        ),
        (("none.h5", "--law", "rows", *ENDS), BROKEN, "none.h5"),
        (
            (bundled() / "0.5.15-session-hole.h5", "--law", "rows", *ENDS),
            NO_VERDICT,
            "0.5.15-session-hole.h5 cannot be played again: it has streaming sessions",
        ),
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_plays(
    arguments: tuple[str | Path, ...],
    code: int,
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Plays, "begin", None)
    assert run(["bisect", *map(str, arguments)]) == code
    assert says in capsys.readouterr().err


def test_a_commit_without_sglang_is_passed_over_unless_it_is_named(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "README").touch()
    commit(tmp_path, "nothing yet")
    path = Lifted("sglang@HEAD", Origin.REVISION, "HEAD", str(tmp_path))
    (found,) = history_by_law(_Kept(), law_of("rows"), [path], lambda _: None)
    assert found.finding is Finding.SKIPPED and "holds no sglang source tree" in (found.why or "")
    with pytest.raises(NoSourceError):
        bisect_by_law(_Kept(), law_of("rows"), path, path, skip=(), report=lambda _: None)


def test_where_sglang_cannot_be_imported_nothing_plays(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plays, "begin", None)
    monkeypatch.setattr(requirements, "_installed", lambda name: name != "pyzmq")
    assert run(["history", str(MIX), "--law", "rows"]) == NO_VERDICT
    assert "are not installed: pyzmq" in capsys.readouterr().err


class _Kept(Plays):
    """What was played before: the release's name says which recordings."""

    def __init__(self, **recordings: Played) -> None:
        self.recordings = recordings

    def __call__(self, player: Player) -> Played:
        return self.recordings[player.code]


def judged(**played: Played) -> list[Any]:
    court = LawCourt(law_of("rows"), _Kept(**played))
    return [court(Lifted(f"sglang=={name}", Origin.RELEASE, name)) for name in played]


def test_of_several_schedulers_the_gravest_counts() -> None:
    """One that breaks the law is not made good by another, nor one that keeps it by one that had no part in it."""
    names = ("0.5.13-experts-overshoot", "0.5.12-experts-overshoot", "0.5.11-stale-retract")
    holds, breaks, idle = (bundled() / f"{name}.h5" for name in names)
    alone = [ask(law_of("rows"), hdf5.load(path), Observed()) for path in (holds, breaks, idle)]
    assert [one.state.value for one in alone] == ["holds", "broken", "not exercised"]
    both, kept, nothing, failed = judged(
        both=Played((holds, breaks, idle)),
        kept=Played((idle, holds)),
        nothing=Played((idle,)),
        failed=Played((holds,), "it stopped"),
    )
    assert both.finding is Finding.BAD and both.outcome.first == alone[1].first
    assert both.outcome.num_checked == sum(one.num_checked for one in alone)
    assert both.outcome.num_broken == alone[1].num_broken
    assert kept.finding is Finding.GOOD
    assert nothing.finding is Finding.SKIPPED and "not captured" in nothing.why
    assert failed.finding is Finding.SKIPPED and failed.why == "it stopped"


def test_a_tree_is_written_out_and_the_clone_left_alone(tmp_path: Path) -> None:
    """Also of a bare clone, and links as they are, wherever they lead."""
    source, bare, out = (tmp_path / name for name in ("source", "bare", "out"))
    probe = source / "python/sglang/srt/managers/schedule_batch.py"
    probe.parent.mkdir(parents=True)
    probe.write_text("x = 1\n")
    (source / "python/sglang/link").symlink_to("../../../elsewhere")
    git(source, "init", "--quiet")
    commit(source, "all")
    probe.write_text("changed since\n")
    git(source, "clone", "--quiet", "--bare", ".", str(bare))
    tree = git(source, "rev-parse", "HEAD:python/sglang")
    index = (source / ".git/index").read_bytes()
    for repo, name in ((source, "one"), (bare, "other")):
        write_out(repo, tree, out / name)
        assert (out / name / "sglang/srt/managers/schedule_batch.py").read_text() == "x = 1\n"
        assert (out / name / "sglang/link").is_symlink()
    assert (source / ".git/index").read_bytes() == index and probe.read_text() == "changed since\n"
    with pytest.raises(NoVerdictError, match="git cannot write it out"):
        write_out(bare, "0" * 40, out / "none")


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("", "it ended without a word"),
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
def test_why_a_play_failed_is_what_was_said_last(told: str, said: str) -> None:
    assert why(told, ended_well=False) == said


def test_why_nothing_was_recorded_we_say_ourselves() -> None:
    told = "rig: 9 requests\nspecdiff: not recorded: no site for 'process'\n"
    assert why(told, ended_well=True) == "not recorded: no site for 'process'"


def test_what_is_not_whole_is_not_judged(tmp_path: Path) -> None:
    """The law may be broken in what is missing: cut off, dropped, or lost to an exception."""
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
        played[name] = Played((tmp_path / f"{name}.h5",))
    for one in judged(**played):
        assert one.finding is Finding.SKIPPED and "not whole" in one.why, one.path
    (good,) = judged(
        whole=Played((bundled() / "0.5.13-experts-overshoot.h5",), None, ("r1: x", "y"))
    )
    assert good.finding is Finding.GOOD
    assert good.why == "otherwise: r1: x (and 1 more)"


def test_each_scheduler_has_to_be_recorded(tmp_path: Path) -> None:
    """And the rig to have come to its end, whatever its exit status."""
    made, result = tmp_path / "made", tmp_path / "result"
    made.mkdir()
    shutil.copy(MIX, made / "one.h5")
    told = "rig: 80 requests\nspecdiff: rank 1 was not recorded\n"
    assert complete(made, result, told).why == "80 requests"
    result.write_text('{"recorded": 2, "otherwise": null}')
    assert complete(made, result, told).why == (
        "1 of 2 schedulers were recorded: rank 1 was not recorded"
    )


@pytest.mark.live
def test_a_scheduler_that_leaves_by_itself_is_not_judged(tmp_path: Path) -> None:
    """With status 0, in the midst of what it was asked."""
    tree = mended_tree(tmp_path / "sglang", "0.5.23")
    text = (tree / NAME).read_text()
    place = "        # Flush async trace ops here"
    assert text.count(place) == 1
    leaves = "        if self.forward_ct > 6:\n            os._exit(0)\n"
    (tree / NAME).write_text(text.replace(place, leaves + place))
    with pytest.raises(NoVerdictError, match="is not played by"):
        outcome(WEIGHTS, str(tree), "commit")


@pytest.mark.live
def test_answers_that_the_script_does_not_expect_are_told_to_who_judges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are what a law may be about. A rank has nobody to tell, and fails; so does a play that nobody judges."""
    nobody_answered = Outcome({}, 9, 0.1, 4)
    monkeypatch.setattr(inprocess, "run_scenario", lambda *_, **__: nobody_answered)
    monkeypatch.setattr(rig_main, "require_packages", lambda: None)
    result = tmp_path / "result.json"
    play = ["--sglang", "0.5.23", "--scenario", str(WEIGHTS)]

    def code(*more: str) -> int:
        return CliRunner().invoke(rig_main.main, [*play, *more]).exit_code

    assert code() == 1
    assert code("--result", str(result)) == 0
    said = json.loads(result.read_text())
    assert said["recorded"] == 1 and "1 of 1 answers are wrong" in said["otherwise"][0]
    result.unlink()
    (tmp_path / "answers").write_bytes(bytes(8))
    monkeypatch.setenv("SPECDIFF_RIG_RANK", "0")
    monkeypatch.setenv("SPECDIFF_RIG_MEET", str(tmp_path))
    assert code("--result", str(result)) == 1 and not result.exists()


@pytest.mark.live
def test_why_nothing_was_recorded_is_said(tmp_path: Path) -> None:
    """The rig came to its end, and the recorder had nothing to do."""
    scenario = tmp_path / "x.toml"
    scenario.write_text('overlap = false\n[[request]]\nrid = "a"\n')
    with pytest.raises(NoVerdictError, match="overlap scheduling is off"):
        outcome(scenario, "sglang==0.5.11", "rows")


def test_a_folder_in_which_nothing_was_kept_goes_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = ["--keep", str(tmp_path / "kept"), "--skip", "0.5.20"]
    assert run(["bisect", str(MIX), "--law", "rows", *ENDS, *keep]) == USAGE
    assert "--skip 0.5.20" in capsys.readouterr().err and not (tmp_path / "kept").exists()


def test_a_tree_is_like_the_release_that_was_tagged_before(tmp_path: Path) -> None:
    package = tmp_path / "python/sglang/srt/managers"
    package.mkdir(parents=True)
    (package / "scheduler.py").touch()
    git(tmp_path, "init", "--quiet")
    commit(tmp_path, "one")
    assert release_before(tmp_path, "HEAD") is None
    for tag in ("v0.5.12", "gateway-v0.3.1", "v0.5.12rc0"):
        git(tmp_path, "tag", tag)
        (tmp_path / tag).touch()
        commit(tmp_path, tag)
    assert release_before(tmp_path, "HEAD~2") == release_before(tmp_path, "HEAD") == "0.5.12"
    assert find_release(str(tmp_path), "0.5.12").version == "0.5.12"
    with pytest.raises(RigError, match="expected a release"):
        find_release(str(tmp_path), "0.4")


def test_git_looks_at_the_clone_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a hook, where it is told of another."""
    for name in ("this", "other"):
        (tmp_path / name).mkdir()
        git(tmp_path / name, "init", "--quiet")
        (tmp_path / name / name).touch()
        commit(tmp_path / name, name)
    here = git(tmp_path / "this", "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    assert commit_of(tmp_path / "this", "HEAD") == here
    assert subject(tmp_path / "this", here).endswith("this")


def test_who_does_not_leave_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playhouse, "_GRACE_S", 0.2)
    stays = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", stays], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "1\n"
        process.terminate()
        playhouse._see_it_end(process)
        assert process.returncode == -signal.SIGKILL


@pytest.mark.live
def test_who_ends_us_ends_the_plays(tmp_path: Path) -> None:
    """As `timeout` does, and CI: no process is left, and no folder."""
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
    """Processes of the rig whose files lie there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            said = path.read_bytes().replace(b"\0", b" ").decode()
            if "specdiff.fixtures.rig --sglang" in said and str(temporary) in said:
                found.append(said)
    return found


@pytest.mark.live
def test_plays_that_run_are_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When there is no more use for them, and when they take too long."""
    release = Player("0.5.13", "sglang-0.5.13", "0.5.13", lambda _: None)
    house = Playhouse()
    plays = Plays(MIX, tmp_path, house)
    waiting = threading.Thread(target=lambda: answers.append(plays(release)))
    answers: list[Played] = []
    waiting.start()
    wait_for(lambda: house._running, "a play")
    (process,) = house._running
    house.close()
    waiting.join(30)
    assert process.returncode not in (None, 0) and answers[0].why
    monkeypatch.setattr(playhouse, "_PATIENCE_S", 0.1)
    with closing(Playhouse()) as late:
        assert "took longer" in (Plays(MIX, tmp_path / "late", late)(release).why or "")
