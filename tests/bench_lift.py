"""Measure how long it takes to load a release: make bench

It is compared with a plain `ast.parse` of the files that are read.

    python tests/bench_lift.py [VERSION...]   # releases with wheels in the cache; default: all

Prints medians in ms:

- uncached: hash the wheel, open it, lift, write the cache
- kept: read the lifted source from the cache
- compiled: turn it into functions

Exits 1 if an uncached release takes 200 ms or more, or a kept one 20 ms or more.
"""

from __future__ import annotations

import ast
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lifting import files_of
from specdiff.replay.lift import wheels
from specdiff.replay.lift.link import Program
from specdiff.replay.lift.open import surface_of
from specdiff.replay.spec import Lifted, Origin

ROUNDS = 7
UNCACHED_MS, KEPT_MS = 200, 20


def main() -> int:
    versions = sys.argv[1:] or wheels.in_cache()
    found = {version: (wheels.wheel_of(version), files_of(version)) for version in versions}
    print("release       files  parse  uncached  x parse  kept  compiled")
    slow = False
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SPECDIFF_CACHE"] = folder
        for version, (wheel, files) in found.items():
            _put(wheel, Path(folder))
            slow |= _bench(version, list(files.values()), Path(folder) / "lifted")
    return int(slow)


def _put(wheel: Path, cache: Path) -> None:
    target = cache / "sglang" / "wheels" / wheel.name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(wheel)


def _bench(version: str, texts: list[str], lifted: Path) -> bool:
    path = Lifted(f"sglang=={version}", Origin.RELEASE, version)
    parse = _median(lambda: [ast.parse(text) for text in texts])
    uncached = _median(lambda: surface_of(path), lambda: shutil.rmtree(lifted, ignore_errors=True))
    kept = _median(lambda: surface_of(path))
    surface = surface_of(path)
    made = _median(lambda: Program(surface).code)
    ratio = uncached / parse
    print(
        f"{version:13} {len(texts):5} {parse:6.1f} {uncached:9.1f} {ratio:8.1f} {kept:5.1f} {made:9.1f}"
    )
    return uncached >= UNCACHED_MS or kept >= KEPT_MS


def _median(work: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """Return the median time in milliseconds. `before` runs before each round and is not timed."""
    times = []
    for _ in range(ROUNDS):
        before()
        started = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times)


if __name__ == "__main__":
    sys.exit(main())
