"""Check a recorder on a server under random load, for minutes: make soak

    python tests/soak.py [--releases 0.5.13,0.5.18,0.5.23] [--minutes 10]

For each release, first compare what the clients of one random mix get with the recorder and without
it: the tokens and the books must be the same. Then run a server for the given number of minutes and
record about half a minute at a time:

- Every client checks every token.
- Every recording is compared with its release.
- Nothing may be dropped.
- The scheduler's memory may not grow from the first recordings to the last by more than a Python
  heap varies anyway.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from children import SPECDIFF, rig, specdiff
from specdiff.recorders import hdf5
from specdiff.replay import spec
from specdiff.replay.verdict import Verdict, replay
from test_record_server import free_port

ON_S, OFF_S = 25.0, 10.0
PORT = free_port()
REQUESTS = 30_000  # of one client, for some minutes; the next client starts when it has ended
GROWTH_MB = 16.0  # a Python heap varies by some MB


@dataclass(slots=True)
class SoakTotals:
    recordings: int = 0
    steps: int = 0
    idle: int = 0  # recordings of a server that had nothing to do
    values: int = 0
    under_way: int = 0  # requests that were already running when their recording began
    dropped: int = 0
    p50_us: float = 0.0
    p99_us: float = 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--releases", default="0.5.13,0.5.18,0.5.23")
    parser.add_argument("--minutes", type=float, default=10)
    told = parser.parse_args()
    bad = 0
    for release in told.releases.split(","):
        with tempfile.TemporaryDirectory() as folder:
            bad += not _same_outputs(release, Path(folder))
            bad += not _soak(release, Path(folder) / "soak", told.minutes)
    return int(bool(bad))


def _same_outputs(release: str, folder: Path, requests: int = 2000) -> bool:
    outputs = []
    for recorded in (False, True):
        events = folder / f"{recorded}.jsonl"
        command = rig(release, "random", "--seed", "7", "--requests", str(requests))
        command += ["--events", str(events)]
        if recorded:
            command = [*SPECDIFF, "record", "-o", str(folder / "same"), "--", *command]
        subprocess.run(command, check=True, capture_output=True, timeout=1200)
        outputs.append([json.loads(line) for line in events.read_text().splitlines()])
    same = outputs[0] == outputs[1]
    tokens = sum(len(answer["output_ids"]) for answer in outputs[0])
    word = "the same" if same else "NOT the same"
    print(
        f"{release}: {requests} requests, {tokens} tokens: {word} with the recorder and without it"
    )
    return same


def _soak(release: str, folder: Path, minutes: float) -> bool:
    serve = rig(release, "random", "--serve", "--port", str(PORT), "--no-experts")
    log = folder.with_name("soak.log")
    record = [*SPECDIFF, "record", "-o", str(folder), "--paused", "--", *serve]
    with (
        log.open("w") as said,
        subprocess.Popen(record, stdout=said, stderr=said, start_new_session=True) as parent,
    ):
        try:
            _load(0, 10).wait(timeout=600)
            found, memory = _in_turn(folder, 60 * minutes)
        except BaseException:
            print(log.read_text()[-3000:])
            raise
        finally:
            os.killpg(parent.pid, signal.SIGKILL)
    half = len(memory) // 2
    growth = statistics.median(memory[half:]) - statistics.median(memory[1 : max(half, 2)])
    print(
        f"{release}: {found.recordings} recordings ({found.idle} of an idle server) that began with "
        f"{found.under_way} requests under way, {found.steps} steps, {found.values} values equal to the release's, "
        f"{found.dropped} dropped, {found.p50_us:.0f} us per step (p50), {found.p99_us:.0f} us (p99); "
        f"memory {memory[0]:.0f} MB, then {', '.join(f'{one:.0f}' for one in memory[1:])}"
    )
    return not found.dropped and growth < GROWTH_MB


def _in_turn(folder: Path, seconds: float) -> tuple[SoakTotals, list[float]]:
    found, memory, end = SoakTotals(), [], time.monotonic() + seconds
    draw = random.Random(1)
    load, seed = _load(1, REQUESTS), 1
    try:
        while time.monotonic() < end:
            time.sleep(OFF_S * draw.uniform(0.5, 1.5))
            if load.poll() is not None:
                assert load.returncode == 0, load.communicate()[1]
                seed += 1
                load = _load(seed, REQUESTS)
            _attach(folder, "start")
            time.sleep(ON_S * draw.uniform(0.5, 1.5))
            status = _attach(folder, "status").stdout
            memory.append(_resident_mb(int(status.split()[1].rstrip(":"))))
            path = Path(_attach(folder, "stop").stdout.strip())
            _add(found, path)
            path.unlink()
    finally:
        load.kill()
    return found, memory


def _load(seed: int, requests: int) -> subprocess.Popen[str]:
    """Start a client that checks every token it gets and stops at the first wrong one."""
    told = ["--port", str(PORT), "--seed", str(seed), "--requests", str(requests), "--wait", "300"]
    command = [sys.executable, "-m", "specdiff.fixtures.rig.client", *told, "--no-aborts"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def _attach(folder: Path, act: str) -> subprocess.CompletedProcess[str]:
    done = specdiff("record", "--attach", folder, act)
    assert done.returncode == 0, done.stderr
    return done


def _resident_mb(pid: int) -> float:
    for line in (Path("/proc") / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {pid} has no memory")


def _add(found: SoakTotals, path: Path) -> None:
    recording = hdf5.load(path)
    found.recordings += 1
    if not len(recording.launches.launch):  # one client had ended, and the next had not started yet
        found.idle += 1
        return
    release = spec.parse(f"sglang=={recording.run.sglang_version}")
    result = replay(recording, release, spec.parse("observed"))
    assert result.verdict is Verdict.SAME, result
    assert recording.stats is not None and recording.stats.exceptions == 0
    found.under_way += int(recording.seed_rows.begins.sum())
    found.steps += recording.stats.steps_measured
    found.values += sum(one.num_compared for one in result.quantities)
    found.dropped += recording.stats.dropped
    found.p50_us = (recording.stats.step_ns_p50 or 0) / 1e3
    found.p99_us = (recording.stats.step_ns_p99 or 0) / 1e3


if __name__ == "__main__":
    sys.exit(main())
