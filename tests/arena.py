"""A release's real scheduler in a process of its own, forked for each play: every play finds it as it was built."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from specdiff.fixtures.rig import messages
from specdiff.fixtures.rig.drive import event_loop
from specdiff.fixtures.rig.postimport import install_patches
from specdiff.fixtures.rig.releases import Release, find_release
from specdiff.fixtures.rig.scheduler import build_scheduler
from specdiff.fixtures.rig.script import RequestScript, WorkerScript
from specdiff.fixtures.rig.stubs import install_stubs
from specdiff.fixtures.rig.truth import Answer
from specdiff.fixtures.rig.wire import connect
from specdiff.fixtures.rig.workarounds import workarounds
from specdiff.recorders.capture.attach import attach
from specdiff.recorders.capture.config import Config

PATIENCE_S = 60
"""For a block of steps, which takes milliseconds."""
NOBODY = -1


@dataclass(frozen=True, slots=True)
class Block:
    """What arrives in the next step, in this order, and how many steps to play. None at all ends the play."""

    turns: int
    opens: tuple[str, ...] = ()
    asks: tuple[RequestScript, ...] = ()
    aborts: tuple[str, ...] = ()
    closes: tuple[str, ...] = ()
    flush: bool = False
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
        process = get_context("spawn").Process(
            target=_serve, args=(theirs, version, folder, settings), daemon=True
        )
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


def _serve(pipe: Connection, version: str, folder: Path, settings: dict[str, Any]) -> None:
    scripts: dict[str, RequestScript] = {}
    stage = _Stage(version, folder, settings, scripts)
    pipe.send(True)
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        fork = os.fork()
        if not fork:
            _Play(pipe, stage, scripts).run()
        _, status = os.waitpid(fork, 0)
        if status:  # it could not say why itself
            pipe.send(Stopped(f"the scheduler's process ended with status {status}"))


class _Stage:
    """The scheduler, built once; it calls whatever `next_step` and `deliver` are by then."""

    def __init__(
        self,
        version: str,
        folder: Path,
        settings: dict[str, Any],
        scripts: dict[str, RequestScript],
    ) -> None:
        import torch

        torch.set_num_threads(1)  # thousands of tiny tensors; and a fork has no thread but its own
        release = find_release(version)
        _prepare(release)
        script = WorkerScript(requests=scripts, capture_experts=True)
        install_stubs()
        install_patches(workarounds(lambda: script))
        self.module = importlib.import_module("sglang.srt.managers.scheduler")
        session = attach(Config(folder, "hunt", ("hunt",), "hunt", 256))
        assert session is not None
        self.folder, self.session = folder, session
        self.next_step: Callable[[], list[Any]] = list
        self.deliver: Callable[[Any], None] = lambda message: None
        connect(lambda: self.next_step(), lambda message: self.deliver(message))
        self.scheduler = build_scheduler(settings)

        session.of_scheduler((self.scheduler,)).close()  # a fork has a recorder of its own

    def fresh_recorder(self) -> Any:
        self.session._constructed(self.scheduler)
        return self.session.of_scheduler((self.scheduler,))

    def force_retract(self, forced: bool) -> None:
        """sglang's own SGLANG_TEST_RETRACT switch, set for one turn of the loop."""
        self.module.TEST_RETRACT = forced  # type: ignore[attr-defined]
        self.module.TEST_RETRACT_INTERVAL = 1  # type: ignore[attr-defined]


class _Ended(BaseException):
    """Leaves sglang's endless event loop; no handler for Exception may swallow it."""


class _Play:
    """In the fork: sglang's own loop, held up between blocks until the next one comes."""

    def __init__(self, pipe: Connection, stage: _Stage, scripts: dict[str, RequestScript]) -> None:
        self._pipe, self._stage, self._scripts = pipe, stage, scripts
        self._recorder = stage.fresh_recorder()
        self._flush = _flushable(self._recorder.writer)
        (self._journal,) = stage.folder.glob(f"*-{os.getpid()}-*.journal")
        self._mailbox = messages.Mailbox(())
        self._answered: dict[str, int] = {}
        self._step, self._turns, self._due = -1, 0, Block(0)
        stage.next_step, stage.deliver = self._next_step, self._deliver

    def run(self) -> NoReturn:
        self._pipe.send(os.getpid())
        try:
            event_loop(self._stage.scheduler)()
        except _Ended:
            self._recorder.close()
            self._pipe.send(self._played(self._mailbox.answers))
        except Exception as error:  # noqa: BLE001 (whatever it is, it would have stopped the server)
            self._recorder.close()
            self._pipe.send(Stopped(_said(error), self._journal))
        finally:
            os._exit(0)

    def _next_step(self) -> list[Any]:
        if not self._turns:
            self._wait()
        self._turns -= 1
        self._step += 1
        due, self._due = self._due, Block(0)
        self._stage.force_retract(due.retract)
        return list(_messages(due))

    def _wait(self) -> None:
        """Between blocks; all that happened is in the journal then."""
        if self._step >= 0:
            self._flush()
            self._pipe.send(self._played())
        block = self._pipe.recv()
        if block is None:
            raise _Ended
        for script in block.asks:
            self._scripts[script.rid] = script
            self._mailbox.expect(script)
        self._turns, self._due = block.turns, block

    def _played(self, answers: dict[str, Answer] | None = None) -> Played:
        return Played(self._journal, tuple(self._answered.items()), answers or {})

    def _deliver(self, message: Any) -> None:
        for rid in self._mailbox.read(message):
            self._answered.setdefault(rid, self._step)


def _messages(block: Block) -> Iterator[Any]:
    """In the order in which the rig sends those of one step (`rig/arrivals.py`)."""
    yield from map(messages.open_message, block.opens)
    yield from map(messages.generate_message, block.asks)
    yield from map(messages.abort_message, block.aborts)
    yield from map(messages.close_message, block.closes)
    if block.flush:
        yield messages.flush_message()


def _flushable(writer: Any) -> Callable[[], None]:
    """Call it, and what the recorder has queued is in the file; its thread would take its 50 ms."""
    drain, lock = writer._drain, threading.Lock()

    def drained() -> None:
        with lock:
            drain()

    writer._drain = drained
    return drained


def _said(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    home = frame.filename.rpartition("/sglang/")[2]
    return f"{type(error).__name__}: {error} ({home}, line {frame.lineno})"


STRICT = {
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE": "1",
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "1",
    "SGLANG_CHECK_KV_PAGE_INVARIANTS": "1",
}
"""sglang's own checks of its pools, at every step and when it is idle: no slot lost, none owned twice."""


def _prepare(release: Release) -> None:
    warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ |= STRICT
    if release.leaks_between_turns:
        os.environ["SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE"] = "0"
        os.environ["SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY"] = "0"
    if release.needs_spec_v2_switch:
        os.environ["SGLANG_ENABLE_SPEC_V2"] = "1"
    logging.disable(logging.CRITICAL)  # it warns about everything that the hunt does
    sys.path.insert(0, str(release.root))
