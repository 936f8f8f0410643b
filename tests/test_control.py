"""The thread that answers `record --attach`.

The servers in these tests close every open file, or run out of descriptors.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from children import SPECDIFF, python, wait_for
from specdiff.recorders.discovery import processes
from specdiff.recorders.errors import UsageError
from specdiff.recorders.notes import read_notes
from specdiff.recorders.runtime import RUNTIME, socket_of

# A process with the recorder in it, to which each test adds a script. `run` returns its stdout and
# what its log says.
SERVER = """
import contextlib, json, os, resource, socket, sys, time
from pathlib import Path
from specdiff.recorders.capture.config import Config
from specdiff.recorders.capture.control import Control
from specdiff.recorders.capture.process_state import ProcessState
from specdiff.recorders.runtime import socket_of
folder, pid = Path(sys.argv[1]), os.getpid()
state = ProcessState(Config(folder, "r", paused=True), [])
state.note.open()
control = Control(state)

def number():
    '''The descriptor of the socket.'''
    (found,) = (int(fd) for fd in os.listdir("/proc/self/fd") if is_socket(fd))
    return found

def is_socket(fd):
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")

@contextlib.contextmanager
def at_rest():
    '''Check that waiting costs almost no processor time.'''
    began = time.process_time()
    yield time.sleep(1)
    spent = time.process_time() - began
    assert spent < 0.3, f"{spent} s of processor time in one"
"""


def run(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[str]]:
    monkeypatch.setenv(RUNTIME, str(folder / "run"))
    done = python(SERVER + script, folder)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("specdiff:")]
    return done.stdout, said


def test_a_server_that_closes_every_open_file_is_not_disturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's own files then get the numbers of the socket and of the note.

    The note is still written completely.
    """
    _, said = run(CLOSES, tmp_path, monkeypatch)
    (line,) = said
    assert "can no longer reach it" in line
    assert [path.read_text() for path in tmp_path.glob("theirs-*")] == [""] * 12
    (path,) = tmp_path.glob("*.attach.json")
    told = [json.loads(line) for line in path.read_text().splitlines()]
    told = [one.get("journal") for one in told if "socket" not in one]
    assert told == [None, None, "r-1-0.journal", "r-1-1.journal"]
    (note,) = read_notes([path])
    assert note.num_schedulers == 2
    assert list((tmp_path / "run").iterdir()) == []


CLOSES = """
os.closerange(3, 256)
with at_rest(): pass
theirs = [os.open(folder / f"theirs-{i}", os.O_CREAT | os.O_RDWR) for i in range(12)]
with at_rest(): pass
state.note.add(constructed=True, journal="r-1-0.journal")
state.note.add(constructed=True, journal="r-1-1.journal")
for fd in theirs: os.close(fd)
"""


def test_clients_of_the_servers_own_socket_are_not_answered_by_the_recorder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's listening socket gets the number that the recorder's had.

    A fork must not close it, whether or not the recorder has noticed that yet.
    """
    answered, said = run(LISTENS, tmp_path, monkeypatch)
    assert answered.split() == ["fork", "open"] * 2 + ["their", "own"] * 5
    assert len(said) == 1


LISTENS = """
def fork():
    if os.fork() == 0:
        os.fstat(at)
        print("fork open", flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
at = number()
first = socket.create_server(("127.0.0.1", 0))
os.dup2(first.fileno(), at)
fork()
first.close()
mine = socket.socket(fileno=at)
time.sleep(0.3)
fork()
mine.settimeout(5)
for _ in range(5):
    client = socket.create_connection(mine.getsockname())
    time.sleep(0.1)
    mine.accept()[0].sendall(b"their own")
    print(client.recv(100).decode())
"""


def test_a_server_without_free_descriptors_answers_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, said = run(FULL, tmp_path, monkeypatch)
    assert json.loads(answer)["recording"] is False
    assert said == []


FULL = """
asks = socket.socket(socket.AF_UNIX)
path, taken = str(socket_of(pid)), []
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
with contextlib.suppress(OSError):
    while True: taken.append(os.dup(0))
asks.connect(path)
asks.sendall(b'{"do": "status"}\\n')
with at_rest(): pass
for fd in taken: os.close(fd)
print(asks.recv(1 << 16).decode())
"""


def test_a_server_in_another_pid_namespace_answers_and_keeps_its_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process number does not exist in the other namespace.

    Needs root, as containers have it.
    """
    namespace = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("cannot create a PID namespace here")
    monkeypatch.setenv(RUNTIME, str(tmp_path / "run"))
    with subprocess.Popen([sys.executable, "-c", SERVER + "input()", tmp_path], stdin=PIPE) as one:
        try:
            wait_for(lambda: list((tmp_path / "run").glob("*.sock")), "the socket")
            status = [*SPECDIFF, "record", "--attach", str(tmp_path), "status"]
            for where in (namespace, []):
                done = subprocess.run(
                    [*where, *status], capture_output=True, text=True, check=False
                )
                assert "recorder loaded, not recording" in done.stdout, done.stderr
            assert [path.stem for path in (tmp_path / "run").iterdir()] == [str(one.pid)]
        finally:
            one.communicate()


def test_only_sockets_without_a_listener_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process has two of these numbers, as with a container elsewhere.

    A newer process has the third one.
    """
    monkeypatch.setenv(RUNTIME, str(tmp_path))
    alive, dead, again = map(socket_of, (5_000_001, 5_000_002, os.getpid()))
    with socket.socket(socket.AF_UNIX) as listens:
        listens.bind(str(alive))
        listens.listen(1)
        for left in (dead, again):
            with socket.socket(socket.AF_UNIX) as killed:
                killed.bind(str(left))
        with pytest.raises(UsageError, match="no recorder found"):
            processes(str(os.getpid()))
        assert list(tmp_path.iterdir()) == [alive]


def test_a_socket_with_a_listener_is_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It belongs to a process that has the same number in another PID namespace.

    A dead process's socket is taken over.
    """
    answer, said = run(TAKEN, tmp_path, monkeypatch)
    assert json.loads(answer)["recording"] is False
    (line,) = said
    assert "another PID namespace" in line and RUNTIME in line


TAKEN = """
Control(state)
with socket.socket(socket.AF_UNIX) as asks:
    asks.connect(str(socket_of(pid)))
    asks.sendall(b'{"do": "status"}\\n')
    print(asks.recv(1 << 16).decode())
"""


def test_the_thread_survives_errors_and_does_not_recreate_its_socket_at_exit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a MemoryError ends the thread.

    While atexit handlers run, it does not create its socket again.
    """
    answered, said = run(ENDS, tmp_path, monkeypatch)
    assert (answered.split(), said) == (["answered"], [])
    assert list((tmp_path / "run").iterdir()) == []


ENDS = """
ours = control._socket
def fails():
    raise MemoryError
next_request, ours.next_request = ours.next_request, fails
time.sleep(0.3)
ours.next_request = next_request
with socket.socket(socket.AF_UNIX) as asks:
    asks.settimeout(5)
    asks.connect(str(socket_of(pid)))
    asks.sendall(b'{"do": "status"}\\n')
    if json.loads(asks.recv(1 << 16))["recording"] is False: print("answered")
ours._leave()  # as at exit; later handlers may take their time
ours._look_at = 0
time.sleep(1)
"""
