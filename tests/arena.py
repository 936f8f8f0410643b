"""A release's real scheduler in a process of its own, forked for each play: every play finds it as it was built."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from specdiff.fixtures.rig.releases import Release
from specdiff.fixtures.rig.script import RequestScript
from specdiff.fixtures.rig.truth import Answer

PATIENCE_S = 60
"""For a block of steps, which takes milliseconds."""
NOBODY = -1


def switches(release: Release) -> dict[str, str]:
    """sglang's own checks of its pools, at every step and when it is idle: no slot lost, none owned twice.

    It has them in its environment. Where turns are known to lose slots there is nothing to find with them.
    """
    idle, busy = (f"SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_{when}" for when in ("IDLE", "BUSY"))
    if release.leaks_between_turns:
        return {idle: "0"}
    return {idle: "1", busy: "1", "SGLANG_CHECK_KV_PAGE_INVARIANTS": "1"}


@dataclass(frozen=True, slots=True)
class Block:
    """What arrives in the next step, in this order, and how many steps to play. None at all ends the play."""

    turns: int
    opens: tuple[str, ...] = ()
    asks: tuple[RequestScript, ...] = ()
    aborts: tuple[str, ...] = ()
    closes: tuple[str, ...] = ()
    controls: frozenset[str] = frozenset()
    retract: bool = False


@dataclass(frozen=True, slots=True)
class Played:
    """`answered`: rid and step of every request so far, in the order of their answers. `journal`: all of it is there."""

    journal: Path
    answered: tuple[tuple[str, int], ...]
    answers: dict[str, Answer] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stopped:
    """The scheduler raised, or never came back."""

    why: str
    journal: Path | None = None


class Arena:
    """The parent's end. One play at a time: `begin`, `play` as often as wanted, the last time without a block."""

    def __init__(self, version: str, folder: Path, settings: dict[str, Any]) -> None:
        folder.mkdir()
        self._folder, self._fork = folder, NOBODY
        self._pipe, theirs = get_context("spawn").Pipe()
        from arena_child import serve  # which needs what is defined here

        arguments = (theirs, version, folder, settings)
        process = get_context("spawn").Process(target=serve, args=arguments, daemon=True)
        process.start()
        theirs.close()
        self._pipe.recv()  # EOFError where it cannot be built; the child has said why

    def begin(self) -> None:
        """Leave whatever is being played, and start anew."""
        self._kill()
        for left in self._folder.iterdir():
            left.unlink()
        self._pipe.send(None)
        self._fork = self._pipe.recv()

    def play(self, block: Block | None) -> Played | Stopped:
        self._pipe.send(block)
        if not self._pipe.poll(PATIENCE_S):
            self._kill()
            return Stopped(f"no end of a block of steps within {PATIENCE_S} s")
        told: Played | Stopped = self._pipe.recv()
        if block is None or isinstance(told, Stopped):
            self._fork = NOBODY
        return told

    def _kill(self) -> None:
        if self._fork != NOBODY:
            os.kill(self._fork, signal.SIGKILL)
            while not isinstance(self._pipe.recv(), Stopped):  # it may have answered just then
                pass
        self._fork = NOBODY
