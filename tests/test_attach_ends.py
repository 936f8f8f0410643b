"""What becomes of recordings that `--attach ... start` began, when their server ends and when their disk refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from children import specdiff
from specdiff.cli.inputs import bundled
from specdiff.recorders import hdf5
from specdiff.recorders.runtime import RUNTIME

CHILD = Path(__file__).parent / "asked_child.py"


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUNTIME, str(tmp_path / "run"))


def recorded(folder: Path, statement: str) -> subprocess.CompletedProcess[str]:
    """`specdiff record --paused` of a process that does this, and ends."""
    command = [sys.executable, str(CHILD), str(bundled() / "0.5.23-random.h5"), statement]
    done = specdiff("record", "--paused", "-o", folder, "--", *command)
    assert done.returncode == 0, done.stderr
    return done


def test_a_ring_begun_by_attach_is_built_when_the_server_ends(tmp_path: Path) -> None:
    """And what SIGUSR1 kept of it; in the folder that it was begun in. What was stopped is built already."""
    other = tmp_path / "other"
    done = recorded(tmp_path / "r", RING.format(other=other))
    paths = [Path(line) for line in done.stdout.splitlines()]
    assert sorted(other.iterdir()) == sorted(paths) and len(paths) == 2
    kept, whole = sorted((hdf5.load(path) for path in paths), key=lambda one: len(one.gaps.dropped))
    assert (len(kept.gaps.dropped), len(whole.gaps.dropped)) == (
        101,
        151,
    )  # one for what came before
    (stopped,) = (tmp_path / "r").iterdir()
    assert len(hdf5.load(stopped).gaps.dropped) == 8


RING = """
import os, signal
attach("start")
emit(7)
attach("stop")
attach("--ring", "60s", "-o", "{other}", "start")
emit(100)
os.kill(os.getppid(), signal.SIGUSR1)
wait_for(lambda: list(Path("{other}").glob("*.1.journal")), "what is kept")
emit(50)
"""


def test_what_attach_began_and_cannot_be_built_is_named(tmp_path: Path) -> None:
    """One has reached its end by itself, one is damaged; the folder is that of the run."""
    folder = tmp_path / "r"
    done = recorded(folder, ENDS)
    (path,) = map(Path, done.stdout.splitlines())
    assert len(hdf5.load(path).gaps.dropped) == 4
    (damaged,) = folder.glob("*.journal")
    assert f"kept {damaged}: the journal ends inside its header" in done.stderr
    assert sorted(folder.iterdir()) == sorted([path, damaged])


ENDS = """
attach("--duration", "3s", "start")
emit(3)
wait_for(lambda: "does not record" in attach("status")[0], "its end")
attach("start")
os.truncate(session.of_process(()).path, 0)
os._exit(0)
"""
