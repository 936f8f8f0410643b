"""Recordings that start and stop on a running server, on request over its socket."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from children import on_demand, specdiff
from specdiff.cli.main import NO_VERDICT, USAGE
from specdiff.recorders import hdf5
from specdiff.recorders.capture.choice import Choice
from specdiff.recorders.recording import Recording
from specdiff.recorders.runs import num_dropped
from specdiff.recorders.runtime import RUNTIME
from specdiff.recorders.schema import Kind
from specdiff.replay import spec
from specdiff.replay.verdict import Verdict, replay
from test_record_server import ask, recorded_server


def attach(target: object, *words: str, code: int = 0) -> tuple[str, str]:
    done = specdiff("record", "--attach", str(target), *words)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


def same_as_its_release(recording: Recording) -> int:
    """Return how many values were compared. None may differ."""
    found = replay(
        recording, spec.parse(f"sglang=={recording.run.sglang_version}"), spec.parse("observed")
    )
    assert found.verdict is Verdict.SAME, found
    return sum(one.num_compared for one in found.quantities)


@pytest.mark.live
@pytest.mark.parametrize("version", [*on_demand("0.5.13"), "0.5.23"])
def test_recordings_start_and_stop_on_a_running_server(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording started under load has equal books from its first step on.

    A second recording of the same server knows nothing of the first, and holds the one request in
    three that it was asked for. A third one, a ring, ends when the server ends.
    """
    runtime, folder = Path(tmp_path / "run"), tmp_path / "r"
    monkeypatch.setenv(RUNTIME, str(runtime))
    with recorded_server(version, folder, "--no-experts", options=("--paused",)) as (port, parent):
        ask(port, 4, "--no-aborts")
        assert "not recording" in attach(folder, "status")[0]
        assert "was not recording" in attach(parent.pid, "stop")[1]
        (door,) = runtime.iterdir()
        assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
        assert stat.S_IMODE(door.stat().st_mode) == 0o600
        assert list(folder.glob("*.journal")) == []

        load = threading.Thread(target=ask, args=(port, 60, "--no-aborts", "--seed", "4"))
        load.start()
        attach(folder, "start")
        assert "Stop that first" in attach(folder, "start", code=NO_VERDICT)[1]
        load.join()
        assert "is in" in attach(parent.pid, "flush")[1]
        said = attach(parent.pid, "status")[0]
        assert "recording to" in said and " 0 dropped" in said and "us p50" in said
        assert " decode steps, " in said
        stopped = attach(folder, "stop")
        paths = [Path(stopped[0].strip())]
        first = hdf5.load(paths[0])
        assert f": {len(first.launches.launch)} launches, " in stopped[1]

        attach(folder, "--sample", "1/3", "--no-tokens", "--steps", "40", "start")
        ask(port, 40, "--no-aborts", "--seed", "5")
        assert "not recording: its limit of 40 steps was reached" in attach(folder, "status")[0]
        second = hdf5.load(Path(attach(folder, "stop")[0].strip()))
        attach(folder, "-o", str(tmp_path / "other"), "--ring", "60s", "start")
        ask(port, 20, "--no-aborts", "--seed", "6")
        parent.terminate()
        output, _ = parent.communicate(timeout=120)
        (third,) = map(Path, output.split())  # the others were built when they stopped
    assert [third] == list((tmp_path / "other").iterdir())
    assert same_as_its_release(hdf5.load(third)) > 100
    assert len(first.gaps.dropped) == 1 and first.events.kind[0] == Kind.GAP
    assert first.run.run_id != second.run.run_id
    assert first.stats is not None and first.stats.closed and first.stats.exceptions == 0
    assert same_as_its_release(first) > 1000 and num_dropped(first) == 0
    assert specdiff("check", paths[0]).returncode == 0
    assert all(Choice(one_in=3).takes(rid) for rid in second.rids) and second.rids
    assert second.stats is not None and second.stats.steps_measured == 40
    steps = [(step.how, step.tokens_replaced) for step in second.derived]
    assert steps == [("sample", False), ("no-tokens", True)]
    assert same_as_its_release(second) > 50


def test_attach_rejects_targets_and_commands_that_do_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUNTIME, str(tmp_path / "run"))
    assert "neither a process number nor a folder" in attach("nowhere", "stop", code=USAGE)[1]
    assert "--paused" in attach(os.getpid(), "status", code=USAGE)[1]
    assert "expected one of start" in attach(tmp_path, "begin", code=USAGE)[1]
    assert "--steps has no effect" in attach(tmp_path, "--steps", "3", "stop", code=USAGE)[1]
    door = tmp_path / "run" / f"{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(door))
    assert "no recorder found" in attach(os.getpid(), "status", code=USAGE)[1]
    assert not door.exists()
    (tmp_path / "run").chmod(0o755)
    assert "mode 700" in attach(os.getpid(), "status", code=USAGE)[1]


def test_malformed_questions_get_an_error_answer(tmp_path: Path) -> None:
    from specdiff.recorders.capture.config import Config
    from specdiff.recorders.capture.control import Control

    answer = Control._answer.__get__(Control.__new__(Control))
    control = answer.__self__
    control._pid, control._running, control._last, control._key = 1, None, None, "k"
    control._state = SimpleNamespace(config=Config(tmp_path))
    for question in (b"", b"{}", b"[]", b'{"do": "explode"}', b'{"do": "start"}'):
        assert "not understood" in answer(question)["error"], question
    wrong = {"do": "start", "directory": "x", "run_id": "y", "options": {"choice": {"rows": "all"}}}
    assert "rows is 'all'" in answer(json.dumps(wrong).encode())["error"]
