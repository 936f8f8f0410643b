"""The child's side of the arena: sglang's scheduler, built once.

In each fork its own event loop runs, paused between blocks.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from arena import Block, PlayedBlock, Stopped, switches
from specdiff.fixtures.rig import messages
from specdiff.fixtures.rig.drive import event_loop
from specdiff.fixtures.rig.postimport import install_patches
from specdiff.fixtures.rig.release import Release, find_release
from specdiff.fixtures.rig.scheduler import build_scheduler
from specdiff.fixtures.rig.script import RequestScript, WorkerScript
from specdiff.fixtures.rig.sockets import connect
from specdiff.fixtures.rig.stubs import install_stubs
from specdiff.fixtures.rig.truth import Answer
from specdiff.fixtures.rig.workarounds import workarounds
from specdiff.recorders.capture.attach import attach
from specdiff.recorders.capture.config import Config
from specdiff.recorders.capture.startup import Startup


def serve(pipe: Connection, version: str, folder: Path, settings: dict[str, Any]) -> None:
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
        if status:  # the fork died without sending a reason
            pipe.send(Stopped(f"the scheduler's process ended with status {status}"))


class _Stage:
    """The scheduler, built once.

    Its message hooks call the current `next_step` and `deliver`, which each play sets.
    """

    def __init__(
        self,
        version: str,
        folder: Path,
        settings: dict[str, Any],
        scripts: dict[str, RequestScript],
    ) -> None:
        import torch

        # The tensors are tiny, and torch's threads would not survive a fork.
        torch.set_num_threads(1)
        release = find_release(version)
        _prepare(release)
        script = WorkerScript(requests=scripts, capture_experts=True)
        install_stubs()
        install_patches(workarounds(lambda: script))
        self.module = importlib.import_module("sglang.srt.managers.scheduler")
        state = attach(Config(folder, "hunt", ("hunt",), "hunt", 256))
        assert state is not None
        self.folder, self._state = folder, state
        self.next_step: Callable[[], list[Any]] = list
        self.deliver: Callable[[Any], None] = lambda message: None
        connect(lambda: self.next_step(), lambda message: self.deliver(message))
        self.scheduler = build_scheduler(settings)

        self._recorder().close()  # each fork gets its own

    def fresh_recorder(self) -> Any:
        Startup(self._state).constructed(self.scheduler)
        return self._recorder()

    def _recorder(self) -> Any:
        return self._state.of_scheduler((self.scheduler,))

    def force_retract(self, forced: bool) -> None:
        """Set sglang's own SGLANG_TEST_RETRACT switch for one turn of the loop."""
        self.module.TEST_RETRACT = forced  # type: ignore[attr-defined]
        self.module.TEST_RETRACT_INTERVAL = 1  # type: ignore[attr-defined]


class _Ended(BaseException):
    """Ends sglang's endless event loop.

    A BaseException, so that no `except Exception` catches it.
    """


class _Play:
    """Runs in the fork.

    Every turn of the loop asks for arrived messages; between blocks it waits for the next block.
    """

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
        except Exception as error:  # noqa: BLE001 (any exception would have stopped the server)
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
        """Report the finished block, with everything in the journal, and wait for the next one."""
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

    def _played(self, answers: dict[str, Answer] | None = None) -> PlayedBlock:
        return PlayedBlock(self._journal, tuple(self._answered.items()), answers or {})

    def _deliver(self, message: Any) -> None:
        for rid in self._mailbox.read(message):
            self._answered.setdefault(rid, self._step)


def _messages(block: Block) -> Iterator[Any]:
    """Yield a step's messages in the order in which the rig sends them (`rig/arrivals.py`)."""
    yield from map(messages.open_message, block.opens)
    yield from map(messages.generate_message, block.asks)
    yield from map(messages.abort_message, block.aborts)
    yield from map(messages.close_message, block.closes)
    yield from (make() for name, make in messages.CONTROLS.items() if name in block.controls)


def _flushable(writer: Any) -> Callable[[], None]:
    """Return a function that writes everything the recorder has queued.

    Without it, the writer's thread may take 50 ms.
    """
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


def _prepare(release: Release) -> None:
    warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ |= switches(release)
    if release.needs_spec_v2_switch:
        os.environ["SGLANG_ENABLE_SPEC_V2"] = "1"
    logging.disable(logging.CRITICAL)  # sglang warns about everything that the hunt does
    sys.path.insert(0, str(release.root))
