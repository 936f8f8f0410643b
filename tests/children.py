"""Real child processes for the capture tests: specdiff itself, plain Pythons, and the rig."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from specdiff.fixtures.rig.releases import RELEASES

T = TypeVar("T")

SPECDIFF = (sys.executable, "-m", "specdiff.cli")

# One per era of hook sites and of places where a request keeps its counters; all of them on demand.
SOME = ("0.5.10", "0.5.11", "0.5.12", "0.5.13", "0.5.16", "0.5.23")
EVERYTHING = bool(os.environ.get("SPECDIFF_TEST_ALL_RELEASES"))
VERSIONS = RELEASES if EVERYTHING else SOME


def on_demand(*cases: T) -> tuple[T, ...]:
    """Parameters that say much the same as those beside them, and take long: played with the releases on demand."""
    return cases if EVERYTHING else ()


# Imports what a release needs to be imported; the rest of the script goes behind it.
IMPORT_ONLY = """
import importlib, sys
from specdiff.fixtures.rig.releases import find_release
from specdiff.fixtures.rig.postimport import install_patches
from specdiff.fixtures.rig.stubs import install_stubs
from specdiff.fixtures.rig.worker import WorkerScript
from specdiff.fixtures.rig.workarounds import workarounds
sys.path.insert(0, str(find_release(sys.argv[1]).root))
install_stubs()
install_patches(workarounds(WorkerScript({}, False, False)))
"""


def specdiff(
    *arguments: str | Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SPECDIFF, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **(env or {})},
        check=False,
    )


def python(
    script: str, *arguments: str | Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **(env or {})},
        check=False,
    )


def rig(version: str, scenario: str, *more: str) -> list[str]:
    """The command that drives a scenario through a release (and fetches it first, where that is needed)."""
    command = [sys.executable, "-m", "specdiff.fixtures.rig", "--sglang", version]
    return [*command, "--scenario", scenario, *more]


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain for {what}"
        time.sleep(0.02)
