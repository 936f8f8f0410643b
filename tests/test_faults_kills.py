"""Kill a busy process at a random moment.

What it handed over 50 ms earlier, or committed with a step, is recovered.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from faults import Tell, trials
from journalled import Record, rebuilt, records_of, same_content
from kills import Killed, Load, load
from specdiff.cli.inputs import bundled
from specdiff.recorders import hdf5, journal
from specdiff.recorders.capture.config import DURABILITIES, EVERY_STEP
from specdiff.recorders.recover import Recovered, recover

RECORDING = bundled() / "0.5.23-random.h5"
# How often the recorded traffic is repeated: it lasts longer than any of these processes lives.
TIMES = 6
WORK_US = (300, 1000, 3000)  # per step
# Other busy threads: none, or one. -1: not even the writer's thread gets to run.
THREADS = (0, 1, -1)


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_kill_loses_nothing_older_than_promised(
    durability: str, tmp_path: Path, tell: Tell
) -> None:
    records, chance = records_of(hdf5.load(RECORDING), TIMES), random.Random(durability)
    counts: Counter[str] = Counter()
    wanted, num_stopped = trials(10, 200), 0
    with load(RECORDING, TIMES) as process:
        while counts.total() < wanted:
            killed = _kill(process, tmp_path, durability, chance)
            num_found = _check_recovered(killed, records, tmp_path)
            if killed.ran or durability == EVERY_STEP:
                _check_nothing_older_is_lost(killed, durability, num_found)
                counts[
                    "complete" if num_found == killed.num_handed else "complete except for its end"
                ] += 1
            else:
                num_stopped += 1
    others = f"; in {num_stopped} more the process was stopped, or got no processor, for 15 ms"
    tell(f"SIGKILL, durability {durability}{others if num_stopped else ''}", counts)


def _kill(process: Load, folder: Path, durability: str, chance: random.Random) -> Killed:
    work, threads = chance.choice(WORK_US), chance.choice(THREADS)
    return process.kill_one(folder / "r-1-0.journal", durability, work, threads, chance)


def _check_recovered(killed: Killed, records: list[Record], folder: Path) -> int:
    """Check that the journal has the first records handed over, and the recording the same.

    Return how many.
    """
    found = [
        (record.type, record.payload)
        for record in journal.scan(killed.journal).records
        if record.type != journal.Type.STATS
    ]
    assert found == records[: len(found)]
    (outcome,) = recover(folder)
    assert isinstance(outcome, Recovered), outcome
    assert same_content(hdf5.load(outcome.path), rebuilt(records[: len(found)], folder))
    for path in folder.iterdir():
        path.unlink()
    return len(found)


def _check_nothing_older_is_lost(killed: Killed, durability: str, num_found: int) -> None:
    lag = killed.lag_ms(num_found)
    if killed.ran:
        assert num_found >= killed.num_older, (
            f"lost a record handed over {lag:.0f} ms before the kill"
        )
    if durability == EVERY_STEP:
        assert num_found >= killed.num_committed, (
            f"lost a committed step, {lag:.0f} ms before the kill"
        )
