"""The hunt itself: it finds what is there, and nothing where nothing is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from specdiff.recorders import hdf5
from specdiff.recorders.schema import Kind

HUNT = Path(__file__).parent / "hunt.py"


def hunt(out: Path, release: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HUNT), "--release", release, "--out", str(out), "--seed", "7"]
    return subprocess.run(
        [*command, "--minutes", "0.001", *options], capture_output=True, text=True, check=False
    )


@pytest.mark.live
def test_nothing_is_found_where_nothing_is_wrong(tmp_path: Path) -> None:
    done = hunt(tmp_path, "0.5.13", "--examples", "25")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "25 scenarios" in done.stdout and "nothing found" in done.stdout
    assert "turn-inherits" in done.stdout and "stale-finished" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.live
def test_a_broken_law_is_found_and_left_with_its_recording(tmp_path: Path) -> None:
    done = hunt(tmp_path, "0.5.11", "--examples", "60", "--no-shrink", "--silence", "rows")
    assert done.returncode == 1, done.stdout + done.stderr
    (text,) = tmp_path.glob("*.txt")
    assert text.read_text().startswith("# law ") and "RequestScript(rid=" in text.read_text()
    recording = hdf5.load(tmp_path / f"{text.stem}.h5")
    assert recording.run.sglang_version == "0.5.11" and len(recording.event_of(Kind.RESULT))
