"""Record the rig with as many SEED events as possible.

    SPECDIFF_RECORD_DIR=... python tests/seeds_child.py RIG-ARGUMENTS...

Inside a recorded process, the recorder's modules have their own package name (`capture/inject`).
"""

from __future__ import annotations

import importlib
import runpy
from typing import Any

recorder = importlib.import_module("specdiff_recorders.capture.recorder")
_end_turn = recorder.Recorder.end_turn


def _end_turn_and_want(self: Any) -> None:
    _end_turn(self)
    if self.resolved and not self.seeding.wanted:
        self.seeding.want()


recorder.Recorder.end_turn = _end_turn_and_want
runpy.run_module("specdiff.fixtures.rig", run_name="__main__", alter_sys=True)
