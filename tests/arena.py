"""One real scheduler in this process that plays scenario after scenario, each into a recording of its own."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from specdiff.fixtures.rig.drive import Driver, run_loop
from specdiff.fixtures.rig.postimport import install_patches
from specdiff.fixtures.rig.releases import find_release
from specdiff.fixtures.rig.scheduler import build_scheduler
from specdiff.fixtures.rig.script import RequestScript, Scenario, WorkerScript
from specdiff.fixtures.rig.settings import server_settings
from specdiff.fixtures.rig.speculation import Speculation
from specdiff.fixtures.rig.stubs import install_stubs
from specdiff.fixtures.rig.truth import check_answers
from specdiff.fixtures.rig.wire import connect
from specdiff.fixtures.rig.workarounds import workarounds
from specdiff.recorders.build import build
from specdiff.recorders.capture.attach import attach
from specdiff.recorders.capture.config import Config
from specdiff.recorders.recording import Recording


class Arena:
    """Once per process: sglang keeps its parallel groups and its arguments in module globals."""

    def __init__(
        self, version: str, folder: Path, pool_tokens: int, speculation: Speculation
    ) -> None:
        release = find_release(version)
        _quiet(release)
        self._folder, self._played = folder, 0
        self._driver: Driver | None = None
        self._scripts: dict[str, RequestScript] = {}
        script = WorkerScript(requests=self._scripts, capture_experts=True)
        install_stubs()
        install_patches(workarounds(lambda: script))
        self._module = importlib.import_module("sglang.srt.managers.scheduler")
        session = attach(Config(folder, "hunt", ("hunt",), "hunt", 256))
        assert session is not None
        self._session = session
        connect(self._next_step, self._deliver)
        settings = server_settings(
            pool_tokens=pool_tokens,
            max_running=64,
            conservativeness=0.05,
            sessions=release.has_setting("enable_streaming_session"),
            speculation=speculation,
        )
        self._scheduler = build_scheduler(settings)

    def play(self, scenario: Scenario) -> Recording:
        """Raises RigError where a client got what the script does not say."""
        scenario = self._with_fresh_sessions(scenario)
        self._scripts.clear()
        self._scripts.update({request.rid: request for request in scenario.requests})
        self._driver = driver = Driver(scenario, self._force_retract)
        if self._played > 1:  # a scheduler that has never run has nothing to flush, and cannot
            self._scheduler.flush_cache()
        recorder = self._fresh_recorder()
        outcome = run_loop(driver, self._scheduler)
        recorder.close()
        (journal,) = self._folder.glob("*.journal")
        recording = build(journal)
        journal.unlink()
        check_answers(scenario.requests, outcome.answers)
        return recording

    def _with_fresh_sessions(self, scenario: Scenario) -> Scenario:
        """A session may still be closing when the next scenario begins: no name is used twice."""
        self._played += 1
        requests = (
            replace(r, session=f"{r.session}.{self._played}") if r.session else r
            for r in scenario.requests
        )
        return replace(scenario, requests=tuple(requests))

    def _fresh_recorder(self) -> Any:
        """A journal for each scenario, so that what is found is small."""
        old = self._session.of_scheduler((self._scheduler,))
        if old is not None:
            old.close()
        for journal in self._folder.glob("*.journal"):
            journal.unlink()
        self._session._constructed(self._scheduler)
        return self._session.of_scheduler((self._scheduler,))

    def _next_step(self) -> list[Any]:
        return [] if self._driver is None else self._driver.next_step()

    def _deliver(self, message: Any) -> None:
        if self._driver is not None:
            self._driver.deliver(message)

    def _force_retract(self, forced: bool) -> None:
        self._module.TEST_RETRACT = forced  # type: ignore[attr-defined]
        self._module.TEST_RETRACT_INTERVAL = 1  # type: ignore[attr-defined]


def _quiet(release: Any) -> None:
    warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ["SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE"] = "0"
    if release.needs_spec_v2_switch:
        os.environ["SGLANG_ENABLE_SPEC_V2"] = "1"
    logging.getLogger("sglang").setLevel(logging.ERROR)
    sys.path.insert(0, str(release.root))
