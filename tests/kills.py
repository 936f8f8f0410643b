"""Kill `kill_load` at a random moment and work out what its journal must hold."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kill_load import STANDSTILL_NS, Clock

PROMISE_NS = 50_000_000
LOAD = Path(__file__).parent / "kill_load.py"


@dataclass(frozen=True, slots=True)
class Killed:
    """One life and its end.

    The counts are of records, in the order in which they were handed over.
    """

    journal: Path
    num_handed: int
    num_committed: int
    num_older: int  # older than 50 ms, and than 50 ms of processor time, at the last sign of life
    stamps: list[int]
    at_ns: int  # the last sign of life; from then to the kill the process did not run
    ran: bool  # to the end: it was not stopped, and the machine never withheld the processor for 15 ms

    def lag_ms(self, num_found: int) -> float:
        """Return how long before the kill the first missing record was handed over, else 0."""
        return (self.at_ns - self.stamps[num_found]) / 1e6 if num_found < self.num_handed else 0.0


class Load:
    def __init__(self, process: subprocess.Popen[str], num_records: int) -> None:
        self._process, self._num_records = process, num_records

    def kill_one(
        self, journal: Path, durability: str, work_us: int, num_threads: int, chance: random.Random
    ) -> Killed:
        clock = journal.with_suffix(".clock")
        pid = int(self._ask(f"{journal} {clock} {durability} {work_us} {num_threads}"))
        while not (journal.exists() and journal.stat().st_size):
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.35))
        at = time.monotonic_ns()
        os.kill(pid, signal.SIGKILL)
        assert self._read() == "gone"
        seen = Clock.over(clock, self._num_records)
        stamps = seen.read()
        seen.shared.close()
        clock.unlink()
        ran = at - seen.alive < STANDSTILL_NS and at - seen.stood_still > PROMISE_NS + STANDSTILL_NS
        wall, used = seen.alive - PROMISE_NS, seen.used - PROMISE_NS
        older = sum(at <= wall and spent <= used for at, spent in stamps)
        times = [at for at, _ in stamps]
        return Killed(journal, seen.handed, seen.committed, older, times, seen.alive, ran)

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def load(recording: Path, times: int) -> Iterator[Load]:
    with subprocess.Popen(
        [sys.executable, str(LOAD), str(recording), str(times)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield Load(process, int(process.stdout.readline()))
        assert process.stdin is not None
        process.stdin.close()
