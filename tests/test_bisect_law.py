"""`bisect` and `history` by a law.

Real schedulers of releases and of a clone's commits play a recording or a scenario.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from children import specdiff
from clones import commit, git
from documented import documented_keys
from patched import NAME, patched_scheduler
from specdiff.cli.inputs import bundled
from specdiff.cli.main import BROKEN, DIFFERS, NO_VERDICT, SAME, USAGE, run
from specdiff.fixtures.rig import requirements
from specdiff.fixtures.rig.errors import RigError
from specdiff.fixtures.rig.release import find_release
from specdiff.recorders import hdf5
from specdiff.recorders.errors import NoVerdictError
from specdiff.replay.bisect.by_law import bisect_by_law, history_by_law
from specdiff.replay.bisect.commits import subject
from specdiff.replay.bisect.judge import Finding
from specdiff.replay.bisect.play_pool import PlayPool
from specdiff.replay.bisect.plays import Plays
from specdiff.replay.bisect.trees import release_before, write_out
from specdiff.replay.laws.check_one import check_law, law_of
from specdiff.replay.laws.law import State
from specdiff.replay.lift.git import NoSourceError, commit_of
from specdiff.replay.spec import Lifted, Observed, Origin

MIX = bundled() / "0.5.10-random.h5"
SCENARIOS = bundled().parent / "scenarios"
WEIGHTS = SCENARIOS / "tokens-of-the-old-weights.toml"
ENDS = ("--good", "sglang==0.5.13", "--bad", "sglang==0.5.12.post1")
COMMITS = ("--good", "sglang@HEAD", "--bad", "sglang@HEAD~3")


@pytest.mark.live
def test_the_release_that_fixed_a_law_is_found(tmp_path: Path) -> None:
    """The whole scheduler of each release plays, and the law is about the rows that a trainer receives.

    --keep keeps the recordings.
    """
    kept = tmp_path / "kept"
    done = specdiff("bisect", MIX, "--law", "trainer", *ENDS, "--keep", kept)
    assert done.returncode == DIFFERS, done.stderr
    assert "fixed in: sglang==0.5.13\n" in done.stdout
    recordings = {path.stem.removeprefix("sglang-"): path for path in kept.iterdir()}
    assert sorted(recordings) == ["0.5.12.post1", "0.5.13"]
    found = {
        name: check_law(law_of("trainer"), hdf5.load(at), Observed())
        for name, at in recordings.items()
    }
    assert found["0.5.13"].num_broken == 0 < found["0.5.12.post1"].num_broken
    for name, made in found.items():
        rows = rf"^sglang=={re.escape(name)} .* {made.num_checked} +{made.num_broken}\b"
        assert re.search(rows, done.stdout, re.MULTILINE)
    (next_one,) = re.findall(r"^To find the commit: specdiff (.*)$", done.stdout, re.MULTILINE)
    assert next_one.endswith("--repo CLONE --good sglang@v0.5.13 --bad sglang@v0.5.12.post1")


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of a release without built files.

    Its commits: new docs, a scheduler that cannot be imported, and a fixed one.
    """
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
    scheduler.write_text(patched_scheduler("0.5.23"))
    commit(folder, "pause: wait for the result under way")
    return folder


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.live
def test_the_commits_that_may_have_fixed_a_law_are_found(repo: Path, tmp_path: Path) -> None:
    """Commits with the same tree are played once.

    The report says why one commit cannot play, and the answer is a range.
    """
    kept, log = tmp_path / "kept", tmp_path / "log"
    asked: list[str | Path] = ["bisect", WEIGHTS, "--law", "weights", *COMMITS, "--repo", repo]
    done = specdiff(*asked, "--keep", kept, "--log", log, "--format", "json")
    assert done.returncode == DIFFERS
    found = told(done)
    names = [f"sglang@{git(repo, 'rev-parse', f'HEAD~{back}')}" for back in range(4)]
    fixed, half, docs, before = names
    by_path = {one["path"]: one for one in found["tested"]}
    listed = documented_keys("bisect.md", "### Exit codes and JSON of `--law`")
    assert all(one.keys() == listed for one in found["tested"])
    assert found["range"] == [half, fixed] and found["last_before"] == docs
    assert {name: by_path[name]["verdict"] for name in names} == {
        fixed: "good",
        half: "skipped",
        docs: "bad",
        before: "bad",
    }
    assert "SyntaxError" in by_path[half]["why"]
    assert by_path[before]["first"]["request"] == "a" and by_path[before]["broken"] == 1
    assert by_path[fixed]["checked"] == by_path[before]["checked"] > 0 == by_path[fixed]["broken"]
    assert len(list(kept.iterdir())) == 2  # one for each tree, not for each commit
    assert git(repo, "status", "--porcelain") == ""
    command = ["git", "-C", str(repo), "bisect", "replay", str(log)]
    replayed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    assert "only 'skip'ped commits left" in replayed
    assert {half[7:], fixed[7:]} <= set(replayed.split())
    git(repo, "bisect", "reset")


@pytest.mark.live
def test_history_says_which_releases_break_a_law() -> None:
    """A release that cannot be judged does not count as keeping the law."""
    ends = ["--from", "sglang==0.5.18", "--to", "sglang==0.5.19"]
    done = specdiff("history", WEIGHTS, "--law", "weights", *ends)
    assert done.returncode == DIFFERS
    assert re.search(r"^sglang==0.5.18 +skipped .*Use 0.5.19 or newer", done.stdout, re.MULTILINE)
    assert re.search(r"^sglang==0.5.19 +broken +\d+ +1 +step \d+", done.stdout, re.MULTILINE)
    assert "2 versions: 1 break the law, 0 keep it, 1 could not be judged." in done.stdout


@pytest.mark.live
def test_a_scheduler_that_crashes_during_the_play_is_not_judged(tmp_path: Path) -> None:
    """0.5.9 stops (docs/findings).

    What it recorded until then keeps the law, but it is reported as skipped.
    """
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
    assert check_law(law_of("commit"), left, Observed()).state is State.HOLDS


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((MIX, "--law", "nope", *ENDS), USAGE, "no law 'nope'; there are: commit, "),
        (
            (MIX, "--law", "rows", *ENDS, "--quantity", "finish"),
            USAGE,
            "--quantity can only be used without --law",
        ),
        (
            (MIX, "--law", "rows", *ENDS, "--against", "fixed"),
            USAGE,
            "--against can only be used without --law",
        ),
        ((MIX, *ENDS, "--keep", "here"), USAGE, "--keep can only be used with --law"),
        ((MIX, "--law", "rows", *ENDS, "--keep", SCENARIOS), BROKEN, "Name a new folder"),
        (("none.toml", "--law", "rows", *ENDS), BROKEN, "none.toml"),
        (("none.H5", "--law", "rows", *ENDS), USAGE, "none.H5: expected a recording (*.h5) or a"),
        (
            (MIX, "--law", "rows", "--good", "sglang==0.5.13", "--bad", "sglang==0.6.0"),
            USAGE,
            "sglang==0.6.0: the rig cannot play this release",
        ),
        (("none.h5", "--law", "rows", *ENDS), BROKEN, "none.h5"),
        (
            (bundled() / "0.5.15-session-hole.h5", "--law", "rows", *ENDS),
            NO_VERDICT,
            "0.5.15-session-hole.h5 cannot be played again: it has streaming sessions",
        ),
    ],
)
def test_impossible_arguments_are_refused_before_anything_plays(
    arguments: tuple[str | Path, ...],
    code: int,
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Plays, "begin", None)
    assert run(["bisect", *map(str, arguments)]) == code
    assert says in capsys.readouterr().err


def test_a_commit_without_sglang_is_skipped_unless_it_is_an_end(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "README").touch()
    commit(tmp_path, "nothing yet")
    path = Lifted("sglang@HEAD", Origin.REVISION, "HEAD", str(tmp_path))
    plays = Plays(MIX, tmp_path / "nothing", PlayPool())
    (found,) = history_by_law(plays, law_of("rows"), [path], lambda _: None)
    assert found.finding is Finding.SKIPPED and "holds no sglang source tree" in (found.why or "")
    with pytest.raises(NoSourceError):
        bisect_by_law(plays, law_of("rows"), path, path, skip=(), report=lambda _: None)


def test_nothing_plays_if_sglang_cannot_be_imported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plays, "begin", None)
    monkeypatch.setattr(requirements, "_installed", lambda name: name != "pyzmq")
    assert run(["history", str(MIX), "--law", "rows"]) == NO_VERDICT
    assert "are not installed: pyzmq" in capsys.readouterr().err


def test_writing_out_a_tree_does_not_change_the_clone(tmp_path: Path) -> None:
    """This also works for a bare clone. Links are written as they are, wherever they lead."""
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
    with pytest.raises(NoVerdictError, match="git cannot write out its source tree"):
        write_out(bare, "0" * 40, out / "none")


def test_the_keep_folder_is_removed_if_nothing_was_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = ["--keep", str(tmp_path / "kept"), "--skip", "0.5.20"]
    assert run(["bisect", str(MIX), "--law", "rows", *ENDS, *keep]) == USAGE
    assert "--skip 0.5.20" in capsys.readouterr().err and not (tmp_path / "kept").exists()


def test_a_tree_is_treated_as_the_release_tagged_before_it(tmp_path: Path) -> None:
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


def test_git_uses_the_named_clone_even_if_another_is_set_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This also works in a git hook, which sets GIT_DIR to another repository."""
    for name in ("this", "other"):
        (tmp_path / name).mkdir()
        git(tmp_path / name, "init", "--quiet")
        (tmp_path / name / name).touch()
        commit(tmp_path / name, name)
    here = git(tmp_path / "this", "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    assert commit_of(tmp_path / "this", "HEAD") == here
    assert subject(tmp_path / "this", here).endswith("this")
