"""A recording that ends while its server goes on: it ends between two steps, or says that it does not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from children import specdiff
from specdiff.fixtures.rig.release import find_release
from specdiff.recorders import hdf5
from specdiff.recorders.runtime import RUNTIME
from specdiff.recorders.schema import Kind
from specdiff.replay import spec
from specdiff.replay.verdict import Verdict, replay

pytestmark = pytest.mark.live

RELEASE = "0.5.23"
# Asks for a stop while a request finishes: after the step's result, before its FINISH. The server
# waits for the stop to arrive, twice for longer than the recorder waits for the end of the step: once
# its step ends in the time that hooks still have, once it does not.
STOPS = """
import os, queue, sys, threading, time
from pathlib import Path
from specdiff.fixtures.rig.__main__ import main
from specdiff.fixtures.rig.postimport import install_patches
from specdiff.recorders import remote
from specdiff.recorders.runtime import socket_of

folder, waits, finished = sys.argv[1], [0.05, 0.28, 0.6, 0.05], []
asked = queue.Queue()

def control():
    me = remote.Process(os.getpid(), socket_of(os.getpid()))
    for run in range(len(waits)):
        start = {"do": "start", "directory": folder, "run_id": f"run{run}", "options": {}}
        assert remote.ask(me, start).error is None
        asked.get()
        remote.ask(me, {"do": "stop"})
    os._exit(0)

def patch(module):
    original = module.Req.update_finish_state
    def slowly(self, *args, **kwargs):
        original(self, *args, **kwargs)
        if self.finished_reason is not None:
            finished.append(self)
            if len(finished) == 1:
                threading.Thread(target=control).start()
            if not len(finished) % 30 and waits:
                asked.put(None)
                time.sleep(waits.pop(0))
    module.Req.update_finish_state = slowly

install_patches({"sglang.srt.managers.schedule_batch": patch})
sys.argv = sys.argv[:1]
main(["--sglang", "0.5.23", "--scenario", "random", "--requests", "4000"], standalone_mode=False)
"""


def test_a_stop_within_a_step_does_not_lose_its_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUNTIME, str(tmp_path / "run"))
    find_release(RELEASE)
    server = [sys.executable, "-c", STOPS, str(tmp_path / "r")]
    done = specdiff("record", "--paused", "-o", tmp_path / "r", "--", *server)
    recordings = [hdf5.load(path) for path in sorted((tmp_path / "r").glob("*-run*.h5"))]
    assert len(recordings) == 4, done.stderr
    own = spec.parse(f"sglang=={RELEASE}")
    for one in recordings:
        assert one.stats is not None and one.stats.closed and one.stats.ended_early
        assert replay(one, spec.parse("observed"), own).verdict is Verdict.SAME
    ends = [Kind(int(one.events.kind[-1])) for one in recordings]
    assert [kind is Kind.GAP for kind in ends] == [False, True, True, False]
