"""The socket at which a server is asked: who is silent, who is gone, and what becomes of its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from test_control import run

# What scripts share: see `test_control.SERVER`.
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
    assert time.monotonic() - began < 2, "it was waited for somebody else"
    return said
"""


def runs(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the log says of it."""
    return run(ASKS + script, folder, monkeypatch)[1]


def test_who_is_silent_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither others nor what ends by itself; nor do many of them take the server's descriptors. Who goes on is answered."""
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
session.control._end = lambda at, why: (over.append(why), setattr(session.control, "_at", None))
session.control.watch(ends, Config(folder, seconds=0))
while not over and time.monotonic() - began < 5: time.sleep(0.01)
assert over and time.monotonic() - began < 1
"""


def test_a_socket_that_was_taken_away_is_there_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And said once, each time; one that another process of our number has put there is left to it."""
    *again, taken = runs(CLEANED, tmp_path, monkeypatch)
    assert len(again) == 2 and all("can reach process" in line for line in again)
    assert all(str(tmp_path / "run") in line for line in again)
    assert "another PID namespace" in taken
    (left,) = (tmp_path / "run").iterdir()
    assert left.stem.isdecimal()  # it is not ours to take away


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
