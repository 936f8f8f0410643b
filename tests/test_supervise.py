"""Supervised commands: exit status and signals are as they would be without specdiff."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from children import wait_for
from specdiff.recorders.errors import UsageError
from specdiff.recorders.supervise import supervise

SUPERVISED = """
import os, sys
from specdiff.recorders.supervise import supervise
sys.exit(supervise(sys.argv[1:], os.environ))
"""
# Writes the signals that it gets to the file argv[1].
COUNTS = """
import signal, sys, time
for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    signal.signal(getattr(signal, name), lambda n, f: open(sys.argv[1], "a").write(f"{n} "))
open(sys.argv[1], "a").write("ready ")
end = time.monotonic() + 1.5
while time.monotonic() < end:
    time.sleep(0.05)
"""


@pytest.mark.parametrize("status", [0, 1, 7, 125])
def test_the_exit_status_is_that_of_the_command(status: int) -> None:
    assert supervise([sys.executable, "-c", f"raise SystemExit({status})"], os.environ) == status


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_death_by_a_signal_gives_128_plus_its_number(number: signal.Signals) -> None:
    script = f"import os; os.kill(os.getpid(), {int(number)})"
    assert supervise([sys.executable, "-c", script], os.environ) == 128 + number


def test_a_signal_that_came_before_the_command_started_is_passed_on() -> None:
    script = "import time; time.sleep(60)"
    assert supervise([sys.executable, "-c", script], os.environ, [signal.SIGTERM]) == 143


def test_a_command_that_does_not_exist_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"cannot start .*nowhere: No such file"):
        supervise(["/nowhere"], os.environ)


def test_the_command_starts_with_default_signal_handling() -> None:
    """The server must not inherit signals that specdiff blocks or that a shell's `&` made it ignore."""
    script = (
        "import signal as s, sys;"
        "sys.exit(bool(s.pthread_sigmask(s.SIG_BLOCK, []))"
        " or s.getsignal(s.SIGINT) is not s.default_int_handler)"
    )
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert supervise([sys.executable, "-c", script], os.environ) == 0
    finally:
        signal.signal(signal.SIGINT, ignored)


def test_supervise_restores_its_own_signal_mask() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    supervise([sys.executable, "-c", ""], os.environ)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_parent_alone_is_passed_on_once(
    tmp_path: Path, number: signal.Signals
) -> None:
    seen = tmp_path / "seen"
    command = [sys.executable, "-c", SUPERVISED, sys.executable, "-c", COUNTS, str(seen)]
    with subprocess.Popen(command) as parent:
        wait_for(lambda: seen.exists() and "ready" in seen.read_text(), "the child")
        parent.send_signal(number)
        assert parent.wait(timeout=30) == 0
    assert seen.read_text() == f"ready {int(number)} "


def test_ctrl_c_in_a_terminal_reaches_the_command_once(tmp_path: Path) -> None:
    """The terminal signals the whole foreground group. If specdiff passed it on, the command would get it twice."""
    seen = tmp_path / "seen"
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover - another process
        os.execv(
            sys.executable,
            [sys.executable, "-c", SUPERVISED, sys.executable, "-c", COUNTS, str(seen)],
        )
    wait_for(lambda: seen.exists() and "ready" in seen.read_text(), "the child")
    os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
    assert seen.read_text() == f"ready {int(signal.SIGINT)} "
