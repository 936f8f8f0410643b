"""A process to be killed: it hands records to a real JournalWriter and is busy in between.

It notes in a shared file what it handed over and when, so that the killer knows what the journal
must hold.

argv: a recording, and how often to repeat its traffic. Each line of stdin starts one life: journal,
clock, durability, microseconds of work per step, number of other busy threads (-1: not even the
writer's thread gets to run). Each life is a fork. The process prints its pid, and `gone` once it
has ended.
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
STAMP = struct.Struct("<2q")  # one per record: when it was handed over, on both clocks
STANDSTILL_NS = 15_000_000
STATS = Stats(0, 0, 0, None, None, None, None, 0, False)


@dataclass(slots=True)
class Clock:
    """What the process did, in shared memory.

    Times are CLOCK_MONOTONIC in ns, which all processes share. `used` is the processor time that
    the process got. With it, a busy machine is not mistaken for a slow writer.
    """

    shared: mmap.mmap
    handed: int = 0
    committed: int = 0
    alive: int = 0  # the last sign of life
    used: int = 0  # processor time at that moment
    stood_still: int = 0  # when the last standstill ended

    @classmethod
    def over(cls, path: Path, num_records: int) -> Clock:
        with open(path, "r+b" if path.exists() else "w+b") as file:
            file.truncate(NUMBERS.size + STAMP.size * num_records)
            return cls(mmap.mmap(file.fileno(), 0))

    def read(self) -> list[tuple[int, int]]:
        """Return when each record was handed over, as the time and the processor time used."""
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
    """Never returns: the parent kills it."""
    if num_threads < 0:
        sys.setswitchinterval(5)  # seconds, so no other thread gets to run
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
    """Run Python code that never waits, like a scheduler's loop."""
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
