"""Play scenarios: the rig drives each scheduler in its own process, under `specdiff record`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

from ..lift.worker_pool import cores
from .play_result import PlayResult, complete, failed, why

_MOST = 4  # plays at a time: each imports torch and an sglang
_TIMEOUT_S = 600  # the rig has a step limit, but cannot interrupt a loop inside sglang
_GRACE_S = 10  # from SIGTERM to SIGKILL
_PACKAGE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Player:
    """One sglang that can play a scenario.

    `code` is equal for equal source. `title` names its recording. `known` is a release that the rig
    can fetch, or the path of a source tree; if it is None, `write_out` writes the source into an
    empty folder. `like` is the release whose rules the rig applies to a tree without a version.
    """

    code: str
    title: str
    known: str | None
    write_out: Callable[[Path], None]
    like: str | None = None


class PlayPool:
    """A pool that runs plays in the order of submission: one per core at a time, four at most.

    Call `close` when done; it ends the plays that are still running.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(min(cores(), _MOST))
        self._lock = Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._closed = False

    def submit(self, scenario: Path, player: Player, folder: Path) -> Future[PlayResult]:
        """Submit a play; for the arguments see `Plays`. The future may raise what `write_out` raises."""
        return self._pool.submit(self._play, scenario.resolve(), player, folder)

    def close(self) -> None:
        """End the running plays, and start no others."""
        with self._lock:
            self._closed, running = True, tuple(self._running)
        for process in running:
            process.terminate()  # `specdiff record` forwards the signal and waits
        for process in running:
            _wait_or_kill(process)
        self._pool.shutdown(cancel_futures=True)

    def _play(self, scenario: Path, player: Player, folder: Path) -> PlayResult:
        """Run one play to its end. Runs on a pool thread."""
        recorded = folder / player.title
        try:
            with TemporaryDirectory(prefix="specdiff-", ignore_cleanup_errors=True) as scratch:
                tree, temporary = Path(scratch) / "tree", Path(scratch) / "tmp"
                tree.mkdir()
                temporary.mkdir()
                if player.known is None:
                    player.write_out(tree)
                rig = ["--sglang", player.known or str(tree), "--scenario", str(scenario)]
                rig += ["--like", player.like] if player.like else []
                played = self._record(rig, recorded, temporary)
        except OSError as error:  # mostly a full disk
            return PlayResult((), f"{error}")
        return played if played.why is None else failed(played, recorded)

    def _record(self, rig: Sequence[str], recorded: Path, temporary: Path) -> PlayResult:
        """Run the rig under `specdiff record`, with a time limit, and return the result."""
        result = temporary / "result.json"
        command = [sys.executable, "-m", "specdiff.cli", "record", "-o", str(recorded), "--"]
        command += [sys.executable, "-m", "specdiff.fixtures.rig", *rig, "--result", str(result)]
        process = self._start(command, temporary)
        if process is None:
            return PlayResult((), "not played: specdiff was stopping")
        try:
            _, stderr = process.communicate(timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.terminate()
            _wait_or_kill(process)
            process.communicate()
            return PlayResult((), f"playing it took longer than {_TIMEOUT_S / 60:.0f} minutes")
        finally:
            with self._lock:
                self._running.discard(process)
        if process.returncode:
            return PlayResult((), why(stderr, ended_well=result.is_file()))
        return complete(recorded, result, stderr)

    def _start(self, command: Sequence[str], temporary: Path) -> subprocess.Popen[str] | None:
        with self._lock:
            if self._closed:
                return None
            process = subprocess.Popen(
                command,
                env=_environment(temporary),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # so that the whole process group can be killed
            )
            self._running.add(process)
            return process


def _environment(temporary: Path) -> dict[str, str]:
    """Return the environment of a play.

    The child imports nothing from the current folder. If this specdiff is not installed but was
    found by its path, the child finds it in the same way.
    """
    env = os.environ | {"PYTHONSAFEPATH": "1", "TMPDIR": str(temporary)}
    if _PACKAGE.name == "specdiff":
        paths = [str(_PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        env["PYTHONPATH"] = os.pathsep.join(paths)
    return env


def _wait_or_kill(process: subprocess.Popen[str]) -> None:
    """Wait for a process that was asked to end; kill its group after the grace period."""
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
