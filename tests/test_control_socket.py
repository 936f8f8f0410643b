"""The socket that answers `record --attach`.

Clients are silent or leave, and the socket's file is removed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from test_control import run

# Shared by the scripts, which run after `test_control.SERVER`.
ASKS = """
def comes(said=b""):
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(5)
    one.connect(str(socket_of(pid)))
    one.sendall(said)
    return one

def asked(do="status", **more):
    began = time.monotonic()
    with comes(json.dumps({"do": do, **more}).encode() + b"\\n") as one:
        said = json.loads(one.recv(1 << 16))
    assert time.monotonic() - began < 2, "it waited for another client"
    return said
"""


def runs(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run the script and return what the log says."""
    return run(ASKS + script, folder, monkeypatch)[1]


def test_silent_clients_delay_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent clients delay neither other clients nor a recording's own end.

    Many of them do not use up the server's descriptors. A client that continues is answered.
    """
    assert runs(SILENT, tmp_path, monkeypatch) == []


SILENT = """
import types
silent = [comes() for _ in range(4)]
half = comes(b'{"do": ')
with at_rest(): pass
for _ in range(3):
    assert asked()["recording"] is False
half.sendall(b'"status"}\\n')
assert json.loads(half.recv(1 << 16))["recording"] is False

more = [comes() for _ in range(30)]
assert asked()["recording"] is False
theirs = sum(map(bool, map(is_socket, os.listdir("/proc/self/fd"))))
assert theirs <= len(silent) + len(more) + 1 + 1 + 8, theirs  # and those we hold, the door, `half`
assert silent[0].recv(1) == b""
with at_rest(): pass

ends = types.SimpleNamespace(ended=True, breach=None, writer=types.SimpleNamespace(stopped=False))
began, over = time.monotonic(), []
control._end = lambda running, why: (over.append(why), setattr(control, "_running", None))
control.watch(ends, Config(folder, seconds=0))
while not over and time.monotonic() - began < 5: time.sleep(0.01)
assert over and time.monotonic() - began < 1
"""


def test_a_removed_socket_is_created_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It logs each restoration once.

    If a process with the same number has put its own socket there, it leaves that alone.
    """
    *again, taken = runs(CLEANED, tmp_path, monkeypatch)
    assert len(again) == 2 and all("can reach process" in line for line in again)
    assert all(str(tmp_path / "run") in line for line in again)
    assert "another PID namespace" in taken
    (left,) = (tmp_path / "run").iterdir()
    assert left.stem.isdecimal()  # it is not ours to remove


CLEANED = """
import shutil
def comes_back():
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with contextlib.suppress(OSError): return asked()["recording"]
        time.sleep(0.1)

path = socket_of(pid)
path.unlink()
assert comes_back() is False
with at_rest(): pass
shutil.rmtree(folder / "run")
assert comes_back() is False
assert path.stat().st_mode & 0o777 == 0o600

other = socket.socket(socket.AF_UNIX)
path.unlink()
other.bind(str(path))
other.listen()
time.sleep(5)
"""
