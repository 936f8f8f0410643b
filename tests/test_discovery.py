"""The servers that `record --attach` finds if its own folder of sockets is another one."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from children import specdiff, wait_for
from specdiff.cli.inputs import bundled
from specdiff.cli.main import NO_VERDICT, USAGE
from specdiff.recorders.discovery import processes
from specdiff.recorders.errors import UsageError
from specdiff.recorders.notes import read_notes
from specdiff.recorders.remote import Process, ask
from specdiff.recorders.runtime import RUNTIME
from test_attach import attach
from test_attach_ends import CHILD
from test_attach_refused import paused_server

XDG = "XDG_RUNTIME_DIR"


@pytest.mark.parametrize("variable", [RUNTIME, XDG, "TMPDIR"])
def test_a_server_with_another_runtime_folder_is_found(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder is looked up in its note, and a process in its own environment.

    The error says where the search looked.
    """
    (tmp_path / "run").mkdir(mode=0o700)
    for name in (RUNTIME, XDG, "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    with contextlib.ExitStack() as ends:
        with monkeypatch.context() as its:
            its.setenv(variable, str(tmp_path / "run"))
            pid = ends.enter_context(paused_server(tmp_path))
        here, bystander = tmp_path / "here", tmp_path / "bystander"
        bystander.mkdir()
        monkeypatch.setenv(RUNTIME, str(here))
        for target in (tmp_path / "r", pid):
            assert "not recording" in attach(target, "status")[0]
        said = attach(bystander, "status", code=USAGE)[1]
        assert f" in {here}." in said and f"set {RUNTIME}" in said


def test_a_server_that_fell_back_to_another_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the server bound its socket, the folder of its first choice did not exist.

    It is found by process number.
    """
    monkeypatch.delenv(RUNTIME, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "run"))
    monkeypatch.setenv(XDG, str(tmp_path / "xdg"))
    (tmp_path / "run").mkdir()
    with paused_server(tmp_path) as pid:
        (tmp_path / "xdg").mkdir(mode=0o700)
        (found,) = processes(str(pid))
        assert found.socket.is_relative_to(tmp_path / "run")


def test_a_session_folder_that_is_too_long_for_a_socket_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir(mode=0o700)
    monkeypatch.delenv(RUNTIME, raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    monkeypatch.setenv(XDG, str(long))
    child = [sys.executable, str(CHILD), str(bundled() / "0.5.23-random.h5"), "attach('status')"]
    done = specdiff("record", "--paused", "-o", tmp_path / "r", "--", *child)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("too_long", [0, 1])
def test_a_paused_server_is_not_started_if_its_socket_has_no_place(
    too_long: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """94 bytes are not too long, even if the server's process has the highest number."""
    folder = tmp_path / ("x" * (94 + too_long - len(bytes(tmp_path)) - 1))
    monkeypatch.setenv(RUNTIME, str(folder))
    started = tmp_path / "started"
    done = specdiff("record", "--paused", "-o", tmp_path / "r", "--", "touch", started)
    assert started.exists() is not bool(too_long)
    if not too_long:
        with socket.socket(socket.AF_UNIX) as longest:
            longest.bind(str(folder / "4194304.sock"))
        return
    assert done.returncode == USAGE
    assert f"{folder} is too long" in done.stderr and f"{94 + too_long} bytes" in done.stderr
    assert f"at most 94. Set {RUNTIME}" in done.stderr


def test_a_paused_server_that_could_not_open_its_socket_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of sockets was there when `record` looked, but not when the server did."""
    monkeypatch.setenv(RUNTIME, str(tmp_path / "run"))
    child = [sys.executable, str(CHILD), str(bundled() / "0.5.23-random.h5"), "pass"]
    spoils = ["sh", "-c", f'chmod 755 {tmp_path}/run && exec "$@"', "sh"]
    done = specdiff("record", "--paused", "-o", tmp_path / "r", "--", *spoils, *child)
    assert done.returncode == NO_VERDICT
    assert "it could not open its control socket" in done.stderr and "mode 700" in done.stderr


def test_a_server_is_found_in_the_runtime_folder_if_its_note_names_a_missing_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shared folder may have another name here, so a container's path means nothing."""
    monkeypatch.setenv(RUNTIME, str(tmp_path / "run"))
    with paused_server(tmp_path) as pid:
        (note,) = (tmp_path / "r").glob("*.attach.json")
        (told,) = read_notes([note])
        assert told.socket == tmp_path / "run" / f"{pid}.sock"
        with note.open("a") as more:
            more.write(json.dumps({"pid": pid, "socket": "/nowhere/1.sock"}) + "\n")
        (found,) = processes(str(tmp_path / "r"))
        assert found == Process(pid, tmp_path / "run" / f"{pid}.sock")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_another_users_socket_is_not_trusted(tmp_path: Path) -> None:
    script = "import os, socket, sys; os.setuid(65534); s = socket.socket(1); s.bind(sys.argv[1]); s.listen(); input()"
    path = Path(f"/tmp/specdiff-test-{os.getpid()}.sock")  # a folder that both users may use
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as other:
        try:
            wait_for(path.exists, "the other process")
            answer = ask(Process(other.pid, path), {"do": "status"})
            assert answer.error == f"cannot be reached ({path} belongs to another user)"
        finally:
            other.communicate(b"\n")
            path.unlink(missing_ok=True)


def test_another_process_with_the_same_number_is_not_asked_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It belongs to another container.

    Its socket is where the note says, or where we look, or the server has no socket.
    """
    monkeypatch.setenv(RUNTIME, str(tmp_path / "run"))
    with paused_server(tmp_path):
        (meant,) = processes(str(tmp_path / "r"))
        (note,) = (tmp_path / "r").glob("*.attach.json")
        assert meant.key is not None and ask(meant, {"do": "status"}).error is None
        other = Process(meant.pid, meant.socket, "0" * 16)
        assert "another process with the same pid" in str(ask(other, {"do": "stop"}).error)
        said = [json.loads(line) for line in note.read_text().splitlines()]
        assert [line["key"] for line in said if "socket" in line] == [meant.key]
        without = [json.dumps(line) for line in said if "socket" not in line]
        note.write_text("\n".join(without) + "\n")
        with pytest.raises(UsageError, match="no recorder found"):
            processes(str(tmp_path / "r"))
