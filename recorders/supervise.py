"""Run a command as its parent would: pass signals on, wait for it, and say how it ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence

from .errors import UsageError

_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_WATCHED = (*_PASSED_ON, signal.SIGCHLD)
_DEFAULT_AGAIN = (
    signal.SIGINT,
    signal.SIGPIPE,
    signal.SIGXFSZ,
)  # Python, or a shell's `&`, ignores
_POLL_S = 1.0


def supervise(command: Sequence[str], env: Mapping[str, str], noted: Sequence[int] = ()) -> int:
    """Run `command` to its end; its exit status, or 128 + N where signal N killed it.

    `noted`: signals that came to us before there was anybody to pass them on to. Raises UsageError where it cannot be started.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    try:
        child = _spawn(command, env)
        for number in noted:
            os.kill(child, number)
        return _wait(child)
    finally:
        while signal.sigtimedwait([signal.SIGCHLD], 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _spawn(command: Sequence[str], env: Mapping[str, str]) -> int:
    try:
        return os.posix_spawnp(
            command[0], list(command), dict(env), setsigmask=[], setsigdef=_DEFAULT_AGAIN
        )
    except OSError as error:
        raise UsageError(f"cannot start {command[0]}: {error.strerror}") from error


def _wait(child: int) -> int:
    while True:
        info = signal.sigtimedwait(_WATCHED, _POLL_S)
        if info is not None and info.si_signo in _PASSED_ON:
            _pass_on(child, info)
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _pass_on(child: int, info: signal.struct_siginfo) -> None:
    """SIGTERM always; the others when a process sent them: a terminal's go to the whole group by themselves."""
    if info.si_signo == signal.SIGTERM or info.si_code <= 0:  # SI_USER and its kin
        os.kill(child, info.si_signo)
