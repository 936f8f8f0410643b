"""sglang as a commit of a git clone: which books it holds, and what is said where there are none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from clones import clone, commit, git
from lifting import bundled_recording, files_of, lifted, write_tree
from specdiff.cli.inputs import bundled
from specdiff.cli.main import DIFFERS, SAME, USAGE, run
from specdiff.replay.lift.engine import replay
from specdiff.replay.lift.link import Books
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
        one, other = (replay(Books(surface), recording).values for surface in two)
        assert one == other


def test_a_commit_is_read_without_a_checkout(history: Path) -> None:
    before = git(history, "status", "--porcelain"), git(history, "rev-parse", "HEAD")
    shutil.rmtree(history / "python")
    surface_of(lifted("sglang@v0.5.10", history))
    assert not (history / "python").exists()
    git(history, "checkout", "--quiet", "--", ".")
    assert before == (git(history, "status", "--porcelain"), git(history, "rev-parse", "HEAD"))


def test_the_command_line(
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


def test_a_revision_that_is_not_there(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for revision in ("no-such-tag", "--upload-pack=x", "v0.5.10:python"):
        command = ["replay", RECORDING, "--old", f"sglang@{revision}", "--repo", str(history)]
        assert run(command) == USAGE
        assert "no such commit" in capsys.readouterr().err
    assert run(["replay", RECORDING, "--old", "sglang@main", "--repo", "/no/such"]) == USAGE
    assert "no such folder" in capsys.readouterr().err


def test_a_commit_without_sglang(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    (tmp_path / "README").write_text("nothing")
    commit(tmp_path, "nothing")
    command = ["replay", RECORDING, "--old", "sglang@main", "--repo", str(tmp_path)]
    assert run(command) == USAGE
    assert "holds no sglang" in capsys.readouterr().err
