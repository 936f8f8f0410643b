"""Commands under supervision: their status and their signals are as they would be without us."""

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
# Says which signals it got; `$1` is where.
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
def test_exit_status_is_the_commands(status: int) -> None:
    assert supervise([sys.executable, "-c", f"raise SystemExit({status})"], os.environ) == status


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_death_by_signal_is_128_and_its_number(number: signal.Signals) -> None:
    script = f"import os; os.kill(os.getpid(), {int(number)})"
    assert supervise([sys.executable, "-c", script], os.environ) == 128 + number


def test_a_signal_that_came_too_early_is_passed_on_all_the_same() -> None:
    script = "import time; time.sleep(60)"
    assert supervise([sys.executable, "-c", script], os.environ, [signal.SIGTERM]) == 143


def test_command_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match=r"cannot start .*nowhere: No such file"):
        supervise(["/nowhere"], os.environ)


def test_child_starts_with_clean_signals() -> None:
    """Blocked by us, ignored by Python or by a shell's `&`: the server must see none of it."""
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


def test_our_own_mask_comes_back() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    supervise([sys.executable, "-c", ""], os.environ)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_to_the_parent_alone_is_passed_on_once(
    tmp_path: Path, number: signal.Signals
) -> None:
    seen = tmp_path / "seen"
    command = [sys.executable, "-c", SUPERVISED, sys.executable, "-c", COUNTS, str(seen)]
    with subprocess.Popen(command) as parent:
        wait_for(lambda: seen.exists() and "ready" in seen.read_text(), "the child")
        parent.send_signal(number)
        assert parent.wait(timeout=30) == 0
    assert seen.read_text() == f"ready {int(number)} "


def test_ctrl_c_in_a_terminal_reaches_the_child_once(tmp_path: Path) -> None:
    """The terminal signals the whole foreground group; passing that on would be a second Ctrl-C."""
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
