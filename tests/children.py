"""Helpers that start real child processes: specdiff itself, a plain Python, and the rig."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from specdiff.fixtures.rig.release import RELEASES

T = TypeVar("T")

SPECDIFF = (sys.executable, "-m", "specdiff.cli")

# One release per era of hook sites and of counter locations on a request. SPECDIFF_TEST_ALL_RELEASES selects all.
SOME = ("0.5.10", "0.5.11", "0.5.12", "0.5.13", "0.5.16", "0.5.23")
EVERYTHING = bool(os.environ.get("SPECDIFF_TEST_ALL_RELEASES"))
VERSIONS = RELEASES if EVERYTHING else SOME


def on_demand(*cases: T) -> tuple[T, ...]:
    """Return slow parameters that add little to the others.

    They run only if all releases are tested.
    """
    return cases if EVERYTHING else ()


# Prepares the import of a release. Scripts append their own code.
IMPORT_ONLY = """
import importlib, sys
from specdiff.fixtures.rig.release import find_release
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
    """Return the command that plays a scenario on a release.

    It fetches the release first if necessary.
    """
    command = [sys.executable, "-m", "specdiff.fixtures.rig", "--sglang", version]
    return [*command, "--scenario", scenario, *more]


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}, which did not happen"
        time.sleep(0.02)
