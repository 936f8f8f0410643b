"""Commits of an sglang clone as paths: the books they hold, and errors if a revision or its sglang is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from clones import clone, commit, git
from lifting import bundled_recording, files_of, lifted, write_tree
from specdiff.cli.inputs import bundled
from specdiff.cli.main import DIFFERS, SAME, USAGE, run
from specdiff.recorders.errors import UsageError
from specdiff.replay.bisect.commits import first_parents, merge_base
from specdiff.replay.lift.engine import replay
from specdiff.replay.lift.link import Program
from specdiff.replay.lift.open import surface_of
from test_fidelity import ERAS

RECORDING = str(bundled() / "0.5.23-random.h5")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone(tmp_path_factory.mktemp("history"), ERAS)


@pytest.mark.parametrize("version", ERAS)
def test_a_commit_holds_the_books_of_its_release(version: str, history: Path) -> None:
    released = surface_of(lifted(f"sglang=={version}"))
    for revision in (f"v{version}", f"behind-{version}", git(history, "rev-parse", f"v{version}")):
        assert surface_of(lifted(f"sglang@{revision}", history)).digest == released.digest


def test_a_commit_gives_the_ledger_of_its_release(history: Path) -> None:
    recording = bundled_recording("0.5.23-random")
    for version in ERAS:
        two = (
            surface_of(lifted(f"sglang=={version}")),
            surface_of(lifted(f"sglang@v{version}", history)),
        )
        one, other = (replay(Program(surface), recording).values for surface in two)
        assert one == other


def test_a_commit_is_read_without_a_checkout(history: Path) -> None:
    before = git(history, "status", "--porcelain"), git(history, "rev-parse", "HEAD")
    shutil.rmtree(history / "python")
    surface_of(lifted("sglang@v0.5.10", history))
    assert not (history / "python").exists()
    git(history, "checkout", "--quiet", "--", ".")
    assert before == (git(history, "status", "--porcelain"), git(history, "rev-parse", "HEAD"))


def test_replay_takes_releases_commits_and_source_trees(
    tmp_path: Path, history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = str(write_tree(tmp_path / "tree", files_of("0.5.10")))
    assert run(["replay", RECORDING, "--old", "observed", "--fixed", "sglang==0.5.23"]) == SAME
    assert run(["replay", RECORDING, "--old", "old", "--fixed", tree]) == SAME
    revision = ["--old", "sglang@v0.5.11", "--repo", str(history)]
    assert run(["replay", RECORDING, *revision, "--fixed", "old+22651"]) == SAME
    capsys.readouterr()
    assert (
        run(["replay", RECORDING, "--old", "sglang==0.5.11", "--fixed", "sglang==0.5.12"])
        == DIFFERS
    )
    said = capsys.readouterr().out
    assert "#23456" in said and "#24851" in said and "#22651" not in said


def test_an_unknown_revision_or_repository_is_a_usage_error(
    history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for revision in ("no-such-tag", "--upload-pack=x", "v0.5.10:python"):
        command = ["replay", RECORDING, "--old", f"sglang@{revision}", "--repo", str(history)]
        assert run(command) == USAGE
        assert "no such commit" in capsys.readouterr().err
    assert run(["replay", RECORDING, "--old", "sglang@main", "--repo", "/no/such"]) == USAGE
    assert "no such folder" in capsys.readouterr().err


def test_the_message_of_git_is_passed_on_if_it_cannot_read_the_repository(
    history: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def said(repo: Path) -> str:
        command = ["replay", RECORDING, "--old", "sglang@main", "--repo", str(repo)]
        assert run(command) == USAGE
        return capsys.readouterr().err

    assert "not a git repository" in said(tmp_path)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    refused = said(history)
    assert "dubious ownership" in refused and "safe.directory" in refused
    assert "not a git repository" not in refused


def test_a_commit_without_sglang_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    (tmp_path / "README").write_text("nothing")
    commit(tmp_path, "nothing")
    command = ["replay", RECORDING, "--old", "sglang@main", "--repo", str(tmp_path)]
    assert run(command) == USAGE
    assert "holds no sglang" in capsys.readouterr().err


def forked(repo: Path) -> Path:
    """Make a repository with commits fork, left and merge on main. `merge` brings in the commit right of a side branch.

    It holds no sglang, because only the order of commits matters here.
    """
    git(repo, "init", "--quiet", "--initial-branch=main")
    empty = ("commit", "--quiet", "--allow-empty", "--message")
    git(repo, *empty, "fork")
    git(repo, "tag", "fork")
    git(repo, "checkout", "--quiet", "-b", "side")
    git(repo, *empty, "right")
    git(repo, "tag", "right")
    git(repo, "checkout", "--quiet", "main")
    git(repo, *empty, "left")
    git(repo, "tag", "left")
    git(repo, "merge", "--quiet", "--no-ff", "--message", "merge", "side")
    git(repo, "tag", "merge")
    return repo


@pytest.mark.parametrize(
    ("oldest", "newest", "says"),
    [
        ("left", "fork", "is the older of"),
        ("left", "left", "are one commit"),
        ("right", "left", "is not an ancestor of"),
        ("right", "merge", "through a merge"),
    ],
)
def test_history_refuses_ends_that_no_line_of_first_parents_joins(
    oldest: str, newest: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If a commit were compared with one that it does not descend from, it would be blamed for changes of others."""
    repo = forked(tmp_path)
    ends = ["--from", f"sglang@{oldest}", "--to", f"sglang@{newest}", "--repo", str(repo)]
    assert run(["history", RECORDING, *ends]) == USAGE
    said = capsys.readouterr().err
    assert says in said and "--unshallow" not in said
    if oldest == "right":  # each of them has a line of its own since the fork
        base = git(repo, "rev-parse", "fork")
        assert f"--from sglang@{base[:12]}" in said
        for end in (oldest, newest):
            tip = git(repo, "rev-parse", end)
            assert first_parents(repo, base, tip, ["sglang"]) == [base, tip]


def test_in_a_shallow_clone_the_error_suggests_fetching_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    repo = forked(whole).as_uri()
    git(tmp_path, "clone", "--quiet", "--depth=1", "--branch=merge", repo, str(cut))
    git(cut, "fetch", "--quiet", "--depth=1", "origin", "tag", "fork")
    ends = ["--from", "sglang@fork", "--to", "sglang@merge", "--repo", str(cut)]
    assert run(["history", RECORDING, *ends]) == USAGE
    assert "git fetch --unshallow" in capsys.readouterr().err
    with pytest.raises(UsageError, match="git fetch --unshallow"):
        merge_base(cut, "fork", "merge")


def test_a_line_of_commits_leaves_out_what_a_merge_brought(tmp_path: Path) -> None:
    repo = forked(tmp_path)
    fork, merge = (git(repo, "rev-parse", name) for name in ("fork", "merge"))
    assert first_parents(repo, fork, merge, ["sglang"]) == [fork, merge]
    assert first_parents(repo, fork, fork, ["sglang"]) == [fork]


def test_a_folder_of_a_clone_has_the_history_of_the_clone(history: Path) -> None:
    ends = [git(history, "rev-parse", f"v{version}") for version in ERAS]
    for repo in (history, history / "python"):
        assert first_parents(repo, ends[0], ends[-1], ["python/sglang/srt"]) == ends
