"""Run a command as a child process: pass signals on to it, wait for it, return how it ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence

from .errors import UsageError

_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_WATCHED = (*_PASSED_ON, signal.SIGCHLD)
# Signals that Python ignores, or that a shell ignores for a command started with `&`. The child
# gets their default handlers back.
_DEFAULT_AGAIN = (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ)
_POLL_S = 1.0


def supervise(
    command: Sequence[str], env: Mapping[str, str], pending_signals: Sequence[int] = ()
) -> int:
    """Run `command` to its end, and return its exit status, or 128 + N if signal N killed it.

    `pending_signals` holds the signals that arrived before the command started; they are passed on to it.

    Raises UsageError if the command cannot be started.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    try:
        child = _spawn(command, env)
        for number in pending_signals:
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
    """Pass a signal on to the child.

    SIGTERM is always passed on. The others are only if a process sent them, because a terminal
    sends its signals to the whole process group itself.
    """
    if info.si_signo == signal.SIGTERM or info.si_code <= 0:  # SI_USER and similar
        os.kill(child, info.si_signo)
