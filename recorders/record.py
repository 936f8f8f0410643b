"""Run a command with the recorder in it, and build recordings from the journals that it writes."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .capture.config import RUN_ID, Config, with_options
from .command import shortened, without_secrets
from .discovery import processes
from .errors import RecordingError, UsageError, to_recover
from .file_names import pid_of
from .notes import left_out, read_notes, why_nothing
from .processes import pids_with_env
from .recover import (
    Recovered,
    RecoveryOutcome,
    is_locked,
    journals,
    notes,
    recover,
)
from .remote import ask
from .runtime import runtime_folder
from .supervise import supervise

_INJECT = Path(__file__).parent / "capture" / "inject"
_POLL_S = 0.1
_MOVED = (
    "{folder} was moved or replaced while the command ran, and nothing of this run is in the folder that has its name "
    "now. If the old one was moved, run `specdiff recover` on it where it is now"
)
_NO_REQUEST = "no request came, or none that --only-rid and --sample take"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Recorded:
    """How the command ended, and the recordings that were built."""

    status: int
    outcomes: tuple[RecoveryOutcome, ...]
    problems: tuple[str, ...]  # what should have been recorded and was not, and why
    left_out: tuple[str, ...] = ()  # the schedulers that were not recorded on purpose

    @property
    def anything(self) -> bool:
        return any(isinstance(done, Recovered) and done.num_requests for done in self.outcomes)


def record(
    directory: Path,
    command: Sequence[str],
    *,
    options: Mapping[str, Any],
    force: bool,
    say: Say,
    run_id: str | None = None,
) -> Recorded:
    """Run `command`, wait until no process writes a journal any more, and build the recordings.

    The journals and the recordings go into `directory`. `options` are those of `with_options`.
    `run_id` is given if several hosts share one; otherwise a new one is made.

    Raises UsageError if the folder is not writable or the command cannot be started, or if a paused
    recording could never be started because there is no place for its control socket.
    """
    all_options = {
        **options,
        "command": shortened(without_secrets(command)),
        "specdiff_version": own_version(),
    }
    config = with_options(Config(writable(directory), run_id or new_run_id()), all_options)
    if config.paused:
        try:
            runtime_folder()
        except OSError as error:
            raise UsageError(
                f"--paused: the recorder could not be reached by --attach: {error}"
            ) from error
    folder = _identity(config.directory)
    with _collect_sigterm() as terms, _rings_kept(config, say):
        status = supervise(command, _environment(config, os.environ), terms)
        _await_writers(config, say, terms)
        try:
            paths = notes(config.directory, config.run_id)
            found = read_notes(paths)
            outcomes = tuple(recover(config.directory, config.run_id, force=force))
        except RecordingError as error:  # the folder is gone; still return the command's status
            return Recorded(status, (), (str(error).removesuffix("."),))
    problems = why_nothing(found, paths)
    empty = [isinstance(done, Recovered) and not done.num_requests for done in outcomes]
    if empty and all(empty) and not config.paused:
        problems = [*problems, _NO_REQUEST]
    if not paths and _identity(config.directory) != folder:
        problems = [_MOVED.format(folder=config.directory)]
    return Recorded(status, outcomes, tuple(problems), tuple(left_out(found)))


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def own_version() -> str:
    """Return the version of specdiff. A clone on PYTHONPATH has no metadata, hence no version."""
    try:
        return version("specdiff")
    except PackageNotFoundError:
        return "not installed"


@contextlib.contextmanager
def _collect_sigterm() -> Iterator[list[int]]:
    """Collect each SIGTERM that `supervise` does not pass on, instead of ending this process."""
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _rings_kept(config: Config, say: Say) -> Iterator[None]:
    """On SIGUSR1, keep a copy of every ring of the run; the copies become recordings at the end."""

    def keep() -> None:
        try:
            for process in processes(str(config.directory)):
                say(f"process {process.pid}: {ask(process, {'do': 'flush'}).flushed}")
        except UsageError as error:
            say(str(error))

    def asked(number: int, frame: object) -> None:
        threading.Thread(target=keep, daemon=True).start()

    before = signal.signal(signal.SIGUSR1, asked)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def writable(directory: Path) -> Path:
    """Create `directory` if needed and return its full path. Raises UsageError if not writable."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory}: cannot be created ({error.strerror})") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UsageError(
            f"{directory}: not writable, but the server has to write its journals there"
        )
    return directory.resolve()


def new_run_id() -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"


def _environment(config: Config, env: Mapping[str, str]) -> dict[str, str]:
    """Return `env` with the recorder's variables, and our sitecustomize first in PYTHONPATH.

    An empty PYTHONPATH is left out, because an empty entry would mean the current folder.
    """
    paths = [str(_INJECT), *filter(None, [env.get("PYTHONPATH")])]
    return {**env, **config.to_env(), "PYTHONPATH": os.pathsep.join(paths)}


def _await_writers(config: Config, say: Say, terms: list[int]) -> None:
    """Wait for the processes that the command started.

    A launcher may end before its schedulers do, or even before they start.

    A SIGTERM is passed on to these processes. A second SIGTERM, or Ctrl-C, ends the waiting. The
    journals that are complete by then are built; the others stay for `specdiff recover`.
    """
    reported: set[int] = set()
    num_passed_on = 0
    try:
        # Look twice: if a process forks and ends during the first look, that look can miss both
        # it and its child.
        while alive := _alive(config) or _alive(config):
            if not alive <= reported:
                say(
                    f"the command has ended, but not the processes that it started; waiting for {_names(alive)}"
                )
                reported |= alive
            if len(terms) > num_passed_on:
                num_passed_on += 1
                _terminate(config, say)
            if num_passed_on > 1:
                raise KeyboardInterrupt
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        say(
            f"no longer waiting; still running: {_names(_alive(config))}. "
            f"When they have ended, run `{to_recover(config.directory)}`"
        )


def _terminate(config: Config, say: Say) -> None:
    pids = _descendants(config)
    say(f"passing SIGTERM on to {_names(pids)}")
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            os.kill(pid, signal.SIGTERM)


def _names(pids: set[int]) -> str:
    return ", ".join(f"{pid} ({_name(pid)})" for pid in sorted(pids)) or "no process"


def _alive(config: Config) -> set[int]:
    """Return the pids of the processes that this run started, or that hold a lock on its files."""
    locking: list[str] = []
    with contextlib.suppress(RecordingError):  # the folder is gone
        locking = _locking_pids(config)
    return {int(pid) for pid in locking} | _descendants(config)


def _locking_pids(config: Config) -> list[str]:
    run = config.directory, config.run_id
    locked = filter(is_locked, (*journals(*run), *notes(*run)))
    return [pid for path in locked if (pid := pid_of(path.name, config.run_id)) is not None]


def _descendants(config: Config) -> set[int]:
    return pids_with_env(f"{RUN_ID}={config.run_id}")


def _name(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "comm").read_text().strip()
    except OSError:
        return "gone"
