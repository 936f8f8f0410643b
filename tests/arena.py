"""A release's real scheduler in its own process.

Each play runs in a fork, so it starts from a freshly built scheduler.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from specdiff.fixtures.rig.release import Release
from specdiff.fixtures.rig.script import RequestScript
from specdiff.fixtures.rig.truth import Answer

PATIENCE_S = 60
"""How long to wait for a block of steps, which takes milliseconds."""
NOBODY = -1


def switches(release: Release) -> dict[str, str]:
    """Return the environment variables that switch on sglang's own checks of its pools.

    They run at every step and when the scheduler is idle: no slot is lost, none has two owners. For
    a release that is known to lose slots between the turns of a session, they would only find that,
    so they stay off.
    """
    idle, busy = (f"SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_{when}" for when in ("IDLE", "BUSY"))
    if release.leaks_between_turns:
        return {idle: "0"}
    return {idle: "1", busy: "1", "SGLANG_CHECK_KV_PAGE_INVARIANTS": "1"}


@dataclass(frozen=True, slots=True)
class Block:
    """What arrives in the next step, in this order, and how many steps to play.

    `None` instead of a block ends the play.
    """

    turns: int
    opens: tuple[str, ...] = ()
    asks: tuple[RequestScript, ...] = ()
    aborts: tuple[str, ...] = ()
    closes: tuple[str, ...] = ()
    controls: frozenset[str] = frozenset()
    retract: bool = False


@dataclass(frozen=True, slots=True)
class PlayedBlock:
    """A block was played.

    `answered`: request id -> step of its answer, in the order of the answers. `journal`: the
    complete journal.
    """

    journal: Path
    answered: tuple[tuple[str, int], ...]
    answers: dict[str, Answer] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stopped:
    """The scheduler raised an exception, or did not return."""

    why: str
    journal: Path | None = None


class Arena:
    """The parent's side.

    One play at a time: call `begin`, then `play` for each block, and at last `play(None)`.
    """

    def __init__(self, version: str, folder: Path, settings: dict[str, Any]) -> None:
        folder.mkdir()
        self._folder, self._fork = folder, NOBODY
        self._pipe, theirs = get_context("spawn").Pipe()
        from arena_child import serve  # not at the top: it imports this module

        arguments = (theirs, version, folder, settings)
        process = get_context("spawn").Process(target=serve, args=arguments, daemon=True)
        process.start()
        theirs.close()
        self._pipe.recv()  # EOFError if the scheduler cannot be built; the child prints why

    def begin(self) -> None:
        """Abandon the current play and start a new one."""
        self._kill()
        for left in self._folder.iterdir():
            left.unlink()
        self._pipe.send(None)
        self._fork = self._pipe.recv()

    def play(self, block: Block | None) -> PlayedBlock | Stopped:
        self._pipe.send(block)
        if not self._pipe.poll(PATIENCE_S):
            self._kill()
            return Stopped(f"a block of steps did not end within {PATIENCE_S} s")
        told: PlayedBlock | Stopped = self._pipe.recv()
        if block is None or isinstance(told, Stopped):
            self._fork = NOBODY
        return told

    def _kill(self) -> None:
        if self._fork != NOBODY:
            os.kill(self._fork, signal.SIGKILL)
            # Discard an answer that it sent before the kill.
            while not isinstance(self._pipe.recv(), Stopped):
                pass
        self._fork = NOBODY
