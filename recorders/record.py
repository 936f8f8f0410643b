"""Run a command with the recorder in it, and turn what it journalled into recordings."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from .capture.config import RUN_ID, Config
from .errors import UsageError
from .notes import read_notes, why_nothing
from .recover import Outcome, Recovered, is_locked, journals, notes, recover
from .supervise import supervise

_INJECT = Path(__file__).parent / "capture" / "inject"
_POLL_S = 0.1

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Recorded:
    """How the command ended and what came of it; `problems` names what was not recorded, and why."""

    status: int
    outcomes: tuple[Outcome, ...]
    problems: tuple[str, ...]

    @property
    def anything(self) -> bool:
        return any(isinstance(outcome, Recovered) for outcome in self.outcomes)


def record(
    directory: Path, command: Sequence[str], *, buffer_mb: int, force: bool, say: Say
) -> Recorded:
    """Run `command`, wait until nothing writes any more, and build the recordings into `directory`.

    Raises UsageError where the folder cannot be written or the command cannot be started.
    """
    config = Config(
        directory=_writable(directory),
        run_id=_new_run_id(),
        command=tuple(command),
        specdiff_version=version("specdiff"),
        buffer_mb=buffer_mb,
    )
    status = supervise(command, _environment(config, os.environ))
    _await_writers(config, say)
    found = read_notes(notes(config.directory, config.run_id))
    outcomes = tuple(recover(config.directory, config.run_id, force=force))
    return Recorded(status, outcomes, tuple(why_nothing(found)))


def _writable(directory: Path) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory}: cannot be created ({error.strerror})") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UsageError(f"{directory}: not writable; the server journals into it")
    return directory.resolve()


def _new_run_id() -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"


def _environment(config: Config, env: Mapping[str, str]) -> dict[str, str]:
    """`env` with the recording asked for and our sitecustomize in front; an empty entry would mean the cwd."""
    paths = [str(_INJECT), *filter(None, [env.get("PYTHONPATH")])]
    return {**env, **config.to_env(), "PYTHONPATH": os.pathsep.join(paths)}


def _await_writers(config: Config, say: Say) -> None:
    """A launcher may be gone before its schedulers are, or before they have even begun.

    Ctrl-C ends the waiting: what is whole by then is built, the other journals stay for `recover`.
    """
    said: set[int] = set()
    try:
        while alive := _alive(config):
            if not alive <= said:
                names = ", ".join(f"{pid} ({_name(pid)})" for pid in sorted(alive))
                say(f"the command has ended, its processes have not; waiting for {names}")
                said |= alive
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        say("no longer waiting")


def _alive(config: Config) -> set[int]:
    """The processes that were started under this recording, and those that hold a file of it."""
    held = [
        path.name[len(config.run_id) + 1 :].partition("-")[0].partition(".")[0]
        for path in (
            *journals(config.directory, config.run_id),
            *notes(config.directory, config.run_id),
        )
        if is_locked(path)
    ]
    return {int(pid) for pid in held} | _descendants(config)


def _descendants(config: Config) -> set[int]:
    """By the run id in their environment; a parent link does not outlive the parent."""
    mark, found = f"{RUN_ID}={config.run_id}\0".encode(), set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone meanwhile, or another user's
            if mark in (folder / "environ").read_bytes() + b"\0":
                found.add(int(folder.name))
    return found - {os.getpid()}


def _name(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "comm").read_text().strip()
    except OSError:
        return "gone"
