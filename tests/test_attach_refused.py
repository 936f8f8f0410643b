"""If a client stops waiting for the recorder, the recorder does not carry out the request later."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from children import SPECDIFF, specdiff, wait_for
from specdiff.cli.inputs import bundled
from specdiff.cli.main import USAGE
from specdiff.recorders import remote
from specdiff.recorders.attached import attached
from specdiff.recorders.recover import is_locked
from specdiff.recorders.runtime import RUNTIME
from test_attach_ends import CHILD, recorded


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUNTIME, str(tmp_path / "run"))


@contextlib.contextmanager
def paused_server(tmp_path: Path) -> Iterator[int]:
    """Start a process with the recorder in it, recording into `r`, with its socket under `run`.

    Yield its pid.
    """
    child = [sys.executable, str(CHILD), str(bundled() / "0.5.23-random.h5"), "input()"]
    command = [*SPECDIFF, "record", "--paused", "-o", str(tmp_path / "r"), "--", *child]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as parent:
        try:
            wait_for(lambda: list((tmp_path / "run").rglob("*.sock")), "the socket")
            (door,) = (tmp_path / "run").rglob("*.sock")
            yield int(door.stem)
        finally:
            parent.communicate("\n")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[int]:
    with paused_server(tmp_path) as pid:
        yield pid


def threads_of(pid: int) -> set[str]:
    """The states of its threads, as in /proc. SIGSTOP stops them one by one, a moment after it was sent."""
    stats = (Path(f"/proc/{pid}/task/{thread}/stat") for thread in os.listdir(f"/proc/{pid}/task"))
    return {stat.read_text().rpartition(")")[2].split()[0] for stat in stats}


def test_a_suspended_server_does_not_carry_out_timed_out_requests_when_it_resumes(
    server: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(act: str) -> remote.ControlAnswer:
        (answer,) = attached(str(server), act, tmp_path / "e", {}, force=False).answers
        return answer

    def refused(act: str) -> None:
        with monkeypatch.context() as hurried:
            hurried.setattr(remote, "_TIMEOUT_S", 0.5)
            os.kill(server, signal.SIGSTOP)
            wait_for(lambda: threads_of(server) == {"T"}, "all threads to stop")
            error = asked(act).error
            os.kill(server, signal.SIGCONT)
        assert error is not None and "it will not begin it later" in error

    refused("start")
    assert asked("status").fields["recording"] is False
    assert asked("start").error is None
    refused("stop")
    assert asked("status").fields["recording"] is True


def test_a_recording_is_ended_if_its_client_left_while_it_started(tmp_path: Path) -> None:
    """Whether the client gave up or was killed.

    A client that only shuts down its sending side is answered.
    """
    done = recorded(tmp_path / "r", LEAVES)
    assert done.stderr.count("did not wait for it to begin") == 2


LEAVES = """
import json, socket, time
from specdiff.recorders import remote
from specdiff.recorders.runtime import socket_of
begin, patience = state.begin, remote._TIMEOUT_S
def slowly(config):
    time.sleep(1)
    return begin(config)
state.begin = slowly
start = {"do": "start", "directory": str(folder), "run_id": "x", "options": {}}
line = json.dumps(start).encode() + b"\\n"

me = remote.Process(os.getpid(), socket_of(os.getpid()))

def comes(*, shut):
    one = socket.socket(socket.AF_UNIX)
    one.connect(str(socket_of(os.getpid())))
    one.sendall(line)
    if shut: one.shutdown(socket.SHUT_WR)
    return one

def status():
    return remote.ask(me, {"do": "status"}).fields

remote._TIMEOUT_S = 0.5
assert "no answer within" in remote.ask(me, start).error
remote._TIMEOUT_S = patience
assert status()["recording"] is False
with comes(shut=False): time.sleep(0.5)
assert status()["recording"] is False
with comes(shut=True) as one:
    assert json.loads(one.recv(1 << 16))["journal"]
assert status()["recording"] is True
attach("stop")
"""


def test_a_server_that_is_still_starting_is_named(tmp_path: Path) -> None:
    """sglang is imported, but its scheduler does not exist before the model is loaded."""
    child = [sys.executable, "-c", LOADING]
    command = [*SPECDIFF, "record", "--paused", "-o", str(folder := tmp_path / "r"), "--", *child]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as parent:
        try:
            wait_for(lambda: list(folder.glob("*.attach.json")), "the note")
            (note,) = folder.glob("*.attach.json")
            pid = note.name.split(".")[0].rpartition("-")[2]
            wait_for(lambda: is_locked(note), "its writer")
            done = specdiff("record", "--attach", folder, "start")
        finally:
            parent.communicate("\n")
    assert done.returncode == USAGE
    assert f"process {pid} of a server that records into {folder} is running" in done.stderr
    assert "Try again when the server is ready" in done.stderr
    assert "no recorder found" in specdiff("record", "--attach", folder, "start").stderr


LOADING = """
import os
from specdiff.recorders.capture.config import from_env
from specdiff.recorders.capture.process_state import ProcessState
ProcessState(from_env(os.environ), []).note.open()
input()
"""
