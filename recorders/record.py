"""Run a command with the recorder in it, and turn what it journalled into recordings."""

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
from .command import without_secrets
from .discovery import processes
from .errors import RecordingError, UsageError, to_recover
from .names import pid_of
from .notes import left_out, read_notes, why_nothing
from .processes import marked
from .recover import (
    Outcome,
    Recovered,
    is_locked,
    journals,
    notes,
    recover,
)
from .remote import ask
from .supervise import supervise

_INJECT = Path(__file__).parent / "capture" / "inject"
_POLL_S = 0.1

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Recorded:
    """How the command ended and what came of it; `problems` names what should have been recorded and was not, and why."""

    status: int
    outcomes: tuple[Outcome, ...]
    problems: tuple[str, ...]
    left_out: tuple[str, ...] = ()  # who is not recorded on purpose

    @property
    def anything(self) -> bool:
        return any(isinstance(outcome, Recovered) for outcome in self.outcomes)


def record(
    directory: Path,
    command: Sequence[str],
    *,
    options: Mapping[str, Any],
    force: bool,
    say: Say,
    run_id: str | None = None,
) -> Recorded:
    """Run `command`, wait until nothing writes any more, and build the recordings into `directory`.

    `options` as `with_options` takes them; `run_id`: several hosts share one, else it is a new one. Raises UsageError
    where the folder cannot be written or the command not started.
    """
    told = {**options, "command": without_secrets(command), "specdiff_version": own_version()}
    config = with_options(Config(writable(directory), run_id or new_run_id()), told)
    with _sigterm_noted() as terms, _rings_kept(config, say):
        status = supervise(command, _environment(config, os.environ), terms)
        _await_writers(config, say, terms)
        try:
            paths = notes(config.directory, config.run_id)
            found = read_notes(paths)
            outcomes = tuple(recover(config.directory, config.run_id, force=force))
        except (
            RecordingError
        ) as error:  # the folder went away: the command's status is not lost with it
            return Recorded(status, (), (str(error).removesuffix("."),))
    return Recorded(status, outcomes, tuple(why_nothing(found, paths)), tuple(left_out(found)))


def own_version() -> str:
    """A clone on PYTHONPATH, as on a host where nothing can be installed, has no metadata."""
    try:
        return version("specdiff")
    except PackageNotFoundError:
        return "not installed"


@contextlib.contextmanager
def _sigterm_noted() -> Iterator[list[int]]:
    """Every SIGTERM that `supervise` does not pass on itself, instead of our end."""
    noted: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: noted.append(number))
    try:
        yield noted
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _rings_kept(config: Config, say: Say) -> Iterator[None]:
    """SIGUSR1: every ring of the run is kept as it is now; it becomes a recording with the others."""

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
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory}: cannot be created ({error.strerror})") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UsageError(f"{directory}: not writable; the server journals into it")
    return directory.resolve()


def new_run_id() -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"


def _environment(config: Config, env: Mapping[str, str]) -> dict[str, str]:
    """`env` with the recording asked for and our sitecustomize in front; an empty entry would mean the cwd."""
    paths = [str(_INJECT), *filter(None, [env.get("PYTHONPATH")])]
    return {**env, **config.to_env(), "PYTHONPATH": os.pathsep.join(paths)}


def _await_writers(config: Config, say: Say, terms: list[int]) -> None:
    """A launcher may be gone before its schedulers are, or before they have even begun.

    A SIGTERM is passed on to them. A second one, or Ctrl-C, ends the waiting: what is whole by then is built,
    the other journals stay for `recover`.
    """
    said: set[int] = set()
    num_passed_on = 0
    try:
        # a second look: who begot another and ended while the first one went on was seen no more, the other not yet
        while alive := _alive(config) or _alive(config):
            if not alive <= said:
                say(f"the command has ended, its processes have not; waiting for {_names(alive)}")
                said |= alive
            if len(terms) > num_passed_on:
                num_passed_on += 1
                _terminate(config, say)
            if num_passed_on > 1:
                raise KeyboardInterrupt
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        say(
            f"no longer waiting; still there: {_names(_alive(config))}. "
            f"When they have ended: {to_recover(config.directory)}"
        )


def _terminate(config: Config, say: Say) -> None:
    pids = _descendants(config)
    say(f"SIGTERM is passed on to {_names(pids)}")
    for pid in pids:
        with contextlib.suppress(OSError):  # gone meanwhile, or another user's
            os.kill(pid, signal.SIGTERM)


def _names(pids: set[int]) -> str:
    return ", ".join(f"{pid} ({_name(pid)})" for pid in sorted(pids)) or "nobody"


def _alive(config: Config) -> set[int]:
    """The processes that were started under this recording, and those that hold a file of it."""
    held: list[str] = []
    with contextlib.suppress(RecordingError):  # the folder went away
        held = _held(config)
    return {int(pid) for pid in held} | _descendants(config)


def _held(config: Config) -> list[str]:
    run = config.directory, config.run_id
    locked = filter(is_locked, (*journals(*run), *notes(*run)))
    return [pid for path in locked if (pid := pid_of(path.name, config.run_id)) is not None]


def _descendants(config: Config) -> set[int]:
    return marked(f"{RUN_ID}={config.run_id}")


def _name(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "comm").read_text().strip()
    except OSError:
        return "gone"
