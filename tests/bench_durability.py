"""Measure what a step costs the scheduler's thread at each durability, in microseconds.

Prints processor time and elapsed time.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from specdiff.recorders.capture.config import DURABILITIES, EVERY_STEP
from specdiff.recorders.capture.writer import JournalWriter
from specdiff.recorders.run import Stats
from specdiff.recorders.schema import Kind
from specdiff.recorders.wire import NUM_FIELDS, ROW_WIDTH, pack_event

STATS = Stats(0, 0, 0, None, None, None, None, 0, False)
STEPS = 3000
PAUSE_S = 0.001  # between steps, spent in Python code that never waits
CLOCKS: dict[str, Callable[[], int]] = {
    "processor": time.thread_time_ns,
    "elapsed": time.perf_counter_ns,
}


def step_of(num_requests: int) -> list[tuple[Kind, bytes]]:
    """Return the events of a decode step. They are made up: only their size matters."""
    made = []
    for kind, blob in ((Kind.PREPARE, b""), (Kind.LAUNCH, b""), (Kind.RESULT, bytes(16))):
        values = [0] * (NUM_FIELDS[kind] - 1) + [num_requests]
        columns = [[5] * num_requests] * ROW_WIDTH[kind]
        made.append((kind, pack_event(kind, 1, 1, values, columns, blob * num_requests)))
    return made


def measure(path: Path, durability: str, num_requests: int, clock: Callable[[], int]) -> list[int]:
    """Return the time each step takes to queue and commit its events, in ns, sorted."""
    every_step = durability == EVERY_STEP
    writer = JournalWriter(path, b"", 1 << 28, lambda _: STATS, print, every_step)
    events, spent = step_of(num_requests), []
    for _ in range(STEPS):
        began = clock()
        for kind, payload in events:
            writer.put(kind, payload, len(payload))
        writer.commit()
        spent.append(clock() - began)
        end = time.perf_counter() + PAUSE_S
        while time.perf_counter() < end:
            sum(range(50))
    writer.close()
    return sorted(spent)


def main() -> None:
    print(
        f"{'durability':11}{'requests':>9}{'time':>11}{'p50':>8}{'p99':>8}   us per step, over {STEPS} steps"
    )
    with tempfile.TemporaryDirectory() as folder:
        for num_requests in (1, 64, 256):
            for durability in DURABILITIES:
                for name, clock in CLOCKS.items():
                    path = Path(folder) / f"{num_requests}-{durability}-{name}.journal"
                    spent = measure(path, durability, num_requests, clock)
                    p50, p99 = (spent[int(q * STEPS)] / 1000 for q in (0.5, 0.99))
                    print(f"{durability:11}{num_requests:9}{name:>11}{p50:8.1f}{p99:8.1f}")


if __name__ == "__main__":
    main()
