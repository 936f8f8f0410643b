"""Measure what recording costs a scheduler: make bench-record

    python tests/bench_record.py [--releases 0.5.23,...] [--running 64,256] [--turns 1500] [--samples 1,16]

Compares it with the same scheduler while its recorder is stopped. One process and one scheduler
serve both measurements. Blocks of turns with the recorder and without it alternate, so that a noisy
machine disturbs both alike. A turn is one pass of sglang's own event loop, minus the scripted
worker's forward and the rig's messages. What is left is the scheduler's own work, which a GPU
server needs too. `hot` is what the recorder itself measured on that thread, per decode step.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from specdiff.fixtures.rig.script import RequestScript, Scenario

BLOCK = 50  # turns
SETTLE = 60  # turns until all requests run
HEAD = "release        running sample  off p50  on p50     p99  ratio  hot p50   p99    max  bytes/step  dropped"


@dataclass(frozen=True, slots=True)
class Measured:
    """Times in us, of turns that decode."""

    off_p50: float
    on_p50: float
    on_p99: float
    ratio: float  # median over the pairs of blocks of mean(on) / mean(off)
    hot_p50: float
    hot_p99: float
    hot_max: float
    bytes_per_step: float
    dropped: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--releases", default="0.5.12,0.5.16,0.5.23")
    parser.add_argument("--running", default="8,64,256")
    parser.add_argument("--turns", type=int, default=1500)
    parser.add_argument("--samples", default="1,16", help="record one in N requests")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.child:
        release, running, one_in = told.child
        print(json.dumps(asdict(_measure(release, int(running), told.turns, int(one_in)))))
        return 0
    print(f"{_machine()}. Times in us.\n{HEAD}")
    for release in told.releases.split(","):
        for running, one_in in product(_numbers(told.running), _numbers(told.samples)):
            found = _in_child(release, running, told.turns, one_in)
            print(
                f"{release:13} {running:8} {f'1/{one_in}':>6} {found.off_p50:8.0f} {found.on_p50:7.0f} {found.on_p99:7.0f} "
                f"{found.ratio:6.3f} {found.hot_p50:8.0f} {found.hot_p99:5.0f} {found.hot_max:6.0f} "
                f"{found.bytes_per_step:11.0f} {found.dropped:8}",
                flush=True,
            )
    return 0


def _machine() -> str:
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"


def _numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


def _in_child(release: str, running: int, turns: int, one_in: int) -> Measured:
    """Measure in a new process, because sglang keeps its state in module globals."""
    told = [__file__, "--child", release, str(running), str(one_in), "--turns", str(turns)]
    done = subprocess.run([sys.executable, *told], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{release} with {running} running: {done.stderr[-2000:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def crowd(running: int, turns: int) -> Scenario:
    """Return a load in which `running` requests run: each one that ends is followed by another.

    Requests alternate: one ends by length, the next by a stop and with routed rows.
    """
    need = 3 * turns  # the most tokens that one lane's requests must produce together
    requests, length = [], 0
    for lane in range(running):
        arrival, i = lane // 16, 0
        while need > arrival * 2:
            length = 300 + (lane * 37 + i * 101) % 400
            requests.append(
                RequestScript(
                    f"bench-{lane}-{i}",
                    arrival=arrival,
                    prompt_len=16 + lane % 48,
                    max_new_tokens=length,
                    stop_at=length - 9 if i % 2 else None,
                    return_routed_experts=i % 2 == 1,
                )
            )
            arrival, i = arrival + length // 3, i + 1
    return Scenario(
        "bench",
        tuple(requests),
        pool_tokens=running * 1200,
        max_running=running,
        capture_experts=True,
    )


class Stopwatch:
    """Times the turns of the loop, minus the rig's share."""

    def __init__(self) -> None:
        self.turns: list[tuple[int, bool]] = []  # time in ns, and whether the turn decoded
        self.decoded = False
        self._began = self._rig = 0

    def turn(self, after: Callable[[], list[Any]]) -> list[Any]:
        now = time.perf_counter_ns()
        if self._began:
            self.turns.append((now - self._began - self._rig, self.decoded))
        found = after()
        self._rig, self.decoded = 0, False
        self._began = time.perf_counter_ns()
        return found

    def of_the_rig(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter_ns()
        try:
            return function(*args, **kwargs)
        finally:
            self._rig += time.perf_counter_ns() - began


def _measure(version: str, running: int, turns: int, one_in: int) -> Measured:
    import bench_child

    with tempfile.TemporaryDirectory() as folder:
        return bench_child.measure(version, crowd(running, turns), turns, Path(folder), one_in)


def measured(
    blocks: list[tuple[bool, list[int]]], hot: tuple[int, int, int], size: float, dropped: int
) -> Measured:
    on = [ns for recording, times in blocks if recording for ns in times]
    off = [ns for recording, times in blocks if not recording for ns in times]
    pairs = zip(blocks[::2], blocks[1::2], strict=False)
    ratios = [
        statistics.fmean(b if second else a) / statistics.fmean(a if second else b)
        for (_, a), (second, b) in pairs
    ]
    on_us, off_us = ([ns / 1e3 for ns in times] for times in (on, off))
    p50, p99, most = (ns / 1e3 for ns in hot)
    return Measured(
        statistics.median(off_us),
        statistics.median(on_us),
        statistics.quantiles(on_us, n=100)[98],
        statistics.median(ratios),
        p50,
        p99,
        most,
        size,
        dropped,
    )


if __name__ == "__main__":
    sys.exit(main())
