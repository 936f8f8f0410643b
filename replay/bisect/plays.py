"""A scenario played by one sglang after the other: the rig drives each whole scheduler in a process of its own, recorded."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

from ..lift.crew import cores

_MOST = 4  # plays at a time: each imports torch, and an sglang
_SAYS = "rig: "
_OF_TORCH = re.compile(r"^\[rank\d+\]: ")  # in front of each line of a traceback
_PATIENCE_S = 900  # a scheduler that stands still ends itself before that


@dataclass(frozen=True, slots=True)
class Player:
    """One sglang. `code`: equal for the same source; `title`: what its recording is called. `known`: a release that the rig can
    fetch, or a source tree; None: `write_out` leaves its source in an empty folder."""

    code: str
    title: str
    known: str | None
    write_out: Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Played:
    """`recordings`: one for each scheduler. `why`: there are none, or the play came to no good end."""

    recordings: tuple[Path, ...]
    why: str | None = None


class Plays:
    """As many at a time as there are cores. Close it: plays that run are ended then."""

    def __init__(self, scenario: Path, folder: Path) -> None:
        """`scenario`: a recording, or a TOML file of the rig's. `folder`: for what is recorded, a file each, a folder where
        there are several schedulers."""
        self._asked = ("--scenario", str(scenario.resolve()))
        self._folder = folder
        self._pool = ThreadPoolExecutor(min(cores(), _MOST))
        self._begun: dict[str, Future[Played]] = {}
        self._lock = Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._closed = False

    def begin(self, player: Player) -> None:
        if player.code not in self._begun:
            self._begun[player.code] = self._pool.submit(self._play, player)

    def __call__(self, player: Player) -> Played:
        """Raises what `write_out` raises."""
        self.begin(player)
        return self._begun[player.code].result()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for process in self._running:
                process.terminate()  # `record` passes it on, and waits
        self._pool.shutdown(cancel_futures=True)

    def _play(self, player: Player) -> Played:
        """On a thread."""
        made = self._folder / player.title
        with TemporaryDirectory(prefix="specdiff-") as scratch:
            if player.known is None:
                player.write_out(Path(scratch))
            return self._record(player.known or scratch, made)

    def _record(self, sglang: str, made: Path) -> Played:
        rig = [sys.executable, "-m", "specdiff.fixtures.rig", "--sglang", sglang, *self._asked]
        command = [sys.executable, "-m", "specdiff.cli", "record", "-o", str(made), "--", *rig]
        process = self._start(command)
        if process is None:
            return Played((), "it was not played any more")
        try:
            _, told = process.communicate(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.communicate()
            return Played((), f"playing it took longer than {_PATIENCE_S // 60} minutes")
        finally:
            with self._lock:
                self._running.discard(process)
        recordings = _alone(made) or tuple(sorted(made.glob("*.h5")))
        good = not process.returncode and recordings
        return Played(recordings, None if good else _why(told))

    def _start(self, command: Sequence[str]) -> subprocess.Popen[str] | None:
        with self._lock:
            if self._closed:
                return None
            process = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONSAFEPATH": "1"},  # no module of the folder we are in
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
            )
            self._running.add(process)
            return process


def _alone(made: Path) -> tuple[Path, ...]:
    """The one recording of a folder, in its place. Where it is not alone it stays where it is."""
    inside = list(made.iterdir()) if made.is_dir() else []
    if len(inside) != 1 or inside[0].suffix != ".h5":
        return ()
    (recording,) = inside
    moved = recording.rename(made.with_name(f"{made.name}.h5"))
    made.rmdir()
    return (moved,)


def _why(told: str) -> str:
    """What the rig said last, unless an exception came behind that: then its last line."""
    lines = [_OF_TORCH.sub("", line) for line in told.splitlines()]
    lines = [line for line in lines if line and not line.startswith("specdiff: ")]
    last = max((i for i, line in enumerate(lines) if line.startswith(_SAYS)), default=len(lines))
    said = lines[last:]
    if said and not any("Traceback (most recent call last)" in line for line in said):
        return "\n".join(said).removeprefix(_SAYS)
    return lines[-1] if lines else "it ended without a word"
