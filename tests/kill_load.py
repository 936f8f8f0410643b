"""A process that is killed: it hands a recording's records to a real JournalWriter and is busy in between.

What it handed over, and when, stands in a shared file, so that whoever kills it can tell what must be in the journal.

argv: the recording, how often its traffic is repeated. Then, per line of stdin, one life: journal, clock, durability,
microseconds of work a step, number of other busy threads (-1: the writer's gets no turn, either). Each is a fork: the pid is answered, and when it is gone, `gone`.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from specdiff.recorders import journal
from specdiff.recorders.capture.config import EVERY_STEP
from specdiff.recorders.capture.writer import JournalWriter
from specdiff.recorders.run import Stats
from specdiff.recorders.schema import Kind

NUMBERS = struct.Struct("<5q")  # the fields of `Clock`, in their order
STAMP = struct.Struct("<2q")  # one per record: when it had been handed over, on both clocks
STANDSTILL_NS = 15_000_000
STATS = Stats(0, 0, 0, None, None, None, None, 0, False)


@dataclass(slots=True)
class Clock:
    """What the process did, in shared memory. Times are CLOCK_MONOTONIC in ns, the same for all processes; `used` is the processor
    time the process was given, so that a busy machine is not mistaken for a slow writer."""

    shared: mmap.mmap
    handed: int = 0
    committed: int = 0
    alive: int = 0  # the last sign of life
    used: int = 0  # processor time at that moment
    stood_still: int = 0  # the end of the last standstill

    @classmethod
    def over(cls, path: Path, num_records: int) -> Clock:
        with open(path, "r+b" if path.exists() else "w+b") as file:
            file.truncate(NUMBERS.size + STAMP.size * num_records)
            return cls(mmap.mmap(file.fileno(), 0))

    def read(self) -> list[tuple[int, int]]:
        """When each record had been handed over: the time, and the processor time used."""
        numbers = NUMBERS.unpack_from(self.shared)
        self.handed, self.committed, self.alive, self.used, self.stood_still = numbers
        stamps = self.shared[NUMBERS.size : NUMBERS.size + STAMP.size * self.handed]
        return list(STAMP.iter_unpack(stamps))

    def tick(self) -> int:
        now = time.monotonic_ns()
        if self.alive and now - self.alive > STANDSTILL_NS:
            self.stood_still = now
        self.alive = now
        self.used = time.process_time_ns()
        numbers = self.handed, self.committed, now, self.used, self.stood_still
        NUMBERS.pack_into(self.shared, 0, *numbers)
        return now

    def hand_over(self) -> None:
        now = time.monotonic_ns(), time.process_time_ns()
        STAMP.pack_into(self.shared, NUMBERS.size + STAMP.size * self.handed, *now)
        self.handed += 1
        self.tick()

    def commit(self) -> None:
        self.committed = self.handed
        self.tick()


def live(
    records: list[tuple[Kind | journal.Type, bytes]],
    path: Path,
    clock: Clock,
    durability: str,
    work_us: int,
    num_threads: int,
) -> None:
    """Never returns: somebody kills it."""
    if num_threads < 0:
        sys.setswitchinterval(5)  # seconds: no other thread gets its turn
    for _ in range(num_threads):
        threading.Thread(target=_spin, daemon=True).start()
    first = journal.frame(*records[0])
    every_step = durability == EVERY_STEP
    writer = JournalWriter(path, first, 1 << 28, lambda _: STATS, print, every_step)
    clock.hand_over()
    clock.commit()
    for type, payload in records[1:]:
        writer.put(type, payload, len(payload))
        clock.hand_over()
        if type == Kind.RESULT:
            writer.commit()
            clock.commit()
            _work(clock, work_us)
    writer.commit()
    clock.commit()
    while True:
        _work(clock, 1000)


def _work(clock: Clock, microseconds: int) -> None:
    """Python that never waits, as a scheduler's loop."""
    end = time.monotonic_ns() + 1000 * microseconds
    while clock.tick() < end:
        sum(range(50))


def _spin() -> None:
    while True:
        sum(range(1000))


def main(recording: str, times: str) -> None:
    from journalled import records_of
    from specdiff.recorders import hdf5

    records = records_of(hdf5.load(Path(recording)), int(times))
    print(len(records), flush=True)
    for line in sys.stdin:
        path, shared, durability, work_us, num_threads = line.split()
        clock = Clock.over(Path(shared), len(records))
        pid = os.fork()
        if not pid:
            live(records, Path(path), clock, durability, int(work_us), int(num_threads))
        print(pid, flush=True)
        os.waitpid(pid, 0)
        print("gone", flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(*sys.argv[1:])
