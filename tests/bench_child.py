"""The scheduler that `bench_record.py` measures, with a recorder that is switched on and off."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from pathlib import Path
from typing import Any

from bench_record import BLOCK, SETTLE, Measured, Stopwatch, measured
from specdiff.fixtures.rig.drive import Driver, ScenarioDone, event_loop
from specdiff.fixtures.rig.inprocess import _quiet
from specdiff.fixtures.rig.postimport import install_patches
from specdiff.fixtures.rig.release import find_release
from specdiff.fixtures.rig.scheduler import build_scheduler
from specdiff.fixtures.rig.script import Scenario, WorkerScript
from specdiff.fixtures.rig.server_args import server_args
from specdiff.fixtures.rig.sockets import connect
from specdiff.fixtures.rig.stubs import install_stubs
from specdiff.fixtures.rig.workarounds import workarounds
from specdiff.recorders.capture.attach import attach
from specdiff.recorders.capture.choice import Choice
from specdiff.recorders.capture.config import Config


def measure(version: str, scenario: Scenario, turns: int, folder: Path, one_in: int) -> Measured:
    import torch

    torch.set_num_threads(1)
    _quiet()
    release = find_release(version)
    if release.needs_spec_v2_switch:
        os.environ["SGLANG_ENABLE_SPEC_V2"] = "1"
    sys.path.insert(0, str(release.root))
    script = WorkerScript(
        requests={request.rid: request for request in scenario.requests}, capture_experts=True
    )
    install_stubs()
    install_patches(workarounds(lambda: script))
    importlib.import_module("sglang.srt.managers.scheduler")
    state = attach(Config(folder, "bench", ("bench",), "bench", 256, choice=Choice(one_in)))
    assert state is not None
    watch = Stopwatch()
    driver = Driver(scenario, lambda forced: None)
    bench = _Bench(driver, watch, turns)
    connect(
        lambda: watch.turn(bench.next_step),
        lambda message: watch.of_the_rig(driver.deliver, message),
    )
    settings = server_args(
        overlap=True,
        pool_tokens=scenario.pool_tokens,
        max_running=scenario.max_running,
        conservativeness=1.0,
        sessions=False,
    )
    scheduler = build_scheduler(settings)
    bench.scheduler = scheduler
    bench.state = state
    recorder = state.of_scheduler((scheduler,))
    assert recorder is not None
    bench.recorder = recorder
    worker = scheduler.draft_worker
    forward = worker.forward_batch_generation

    def timed(batch: Any, *args: Any, **kwargs: Any) -> Any:
        watch.decoded |= not batch.forward_mode.is_extend()
        return watch.of_the_rig(forward, batch, *args, **kwargs)

    worker.forward_batch_generation = timed
    with contextlib.suppress(ScenarioDone):
        event_loop(scheduler)()
    recorder.close()
    (journal,) = folder.glob("*.journal")
    hot = recorder.overhead.decode
    quantiles = (hot.quantile(0.5) or 0, hot.quantile(0.99) or 0, hot.max_ns or 0)
    size = journal.stat().st_size / max(hot.count, 1)
    return measured(bench.blocks, quantiles, size, recorder.dropped)


class _Bench:
    def __init__(self, driver: Driver, watch: Stopwatch, turns: int) -> None:
        self._driver, self._watch, self._left = driver, watch, turns
        self.blocks: list[tuple[bool, list[int]]] = []
        self._seen, self._turn = 0, 0
        self.scheduler: Any = None
        self.state: Any = None
        self.recorder: Any = None

    def next_step(self) -> list[Any]:
        self._turn += 1
        if self._turn > SETTLE and not (self._turn - SETTLE) % BLOCK:
            self._end_block()
        if self._left < self._turn - SETTLE:
            raise ScenarioDone
        return self._driver.next_step()

    def _end_block(self) -> None:
        block = self._watch.turns[-BLOCK:]
        on = getattr(self.scheduler, "_specdiff_recorder", None) is not None
        times = [ns for ns, decoded in block if decoded]
        if len(times) > BLOCK // 2 and self._turn > SETTLE + BLOCK:
            self.blocks.append((on, times))
        self._switch(not on)

    def _switch(self, on: bool) -> None:
        self.scheduler._specdiff_recorder = self.recorder if on else None
        self.state._current = self.recorder if on else None
