"""Exits without atexit, exceptions at any moment, and forks.

Nothing that was flushed is lost, and no records are mixed up.
"""

from __future__ import annotations

import re
import signal
from collections import Counter
from pathlib import Path

import pytest

from faults import FULL, Tell, trials
from specdiff.recorders import journal
from specdiff.recorders.capture.config import DURABILITIES, EVERY_STEP
from specdiff.recorders.recover import is_locked
from test_faults_disk import hand_over, num_found

ENDS = {
    "os._exit(3)": 3,
    "os.abort()": -signal.SIGABRT,
    "os.kill(os.getpid(), signal.SIGTERM)": -signal.SIGTERM,
    "os.kill(os.getpid(), signal.SIGSEGV)": -signal.SIGSEGV,
}


CASES = {f"{durability}, {end}": (durability, end) for durability in DURABILITIES for end in ENDS}


@pytest.mark.parametrize("case", CASES if FULL else list(CASES)[::3])
def test_an_exit_without_atexit_loses_nothing_that_was_flushed(case: str, tmp_path: Path) -> None:
    durability, end = CASES[case]
    path = tmp_path / "r-1-0.journal"
    flushed = "writer.commit()" if durability == EVERY_STEP else "time.sleep(0.1)"
    script = f"import os, signal\nhand_over(1, 3000)\n{flushed}\n{end}"
    done = hand_over(path, script, room=1 << 28, durability=durability)
    assert done.returncode == ENDS[end], done.stderr
    assert not is_locked(path)
    assert num_found(path, tmp_path) == 3000


@pytest.mark.parametrize("end", ["raise SystemExit(3)", "raise ValueError('the server')"])
def test_an_exit_with_atexit_loses_nothing(end: str, tmp_path: Path) -> None:
    path = tmp_path / "r-1-0.journal"
    script = f"import atexit\natexit.register(writer.close)\nhand_over(1, 3000)\n{end}"
    done = hand_over(path, script, room=1 << 28)
    assert done.returncode in (1, 3)
    assert num_found(path, tmp_path) == 3000
    assert journal.scan(path).records[-1].type == journal.Type.STATS


def test_an_exception_at_any_moment_damages_no_journal(tmp_path: Path, tell: Tell) -> None:
    """A signal handler (Ctrl-C, SIGTERM) raises while the scheduler's thread writes a step."""
    count = trials(150, 3000)
    done = hand_over(
        tmp_path / "0.journal", INTERRUPTED.format(count=count), room=1 << 28, durability="step"
    )
    assert done.returncode == 0, done.stderr
    handed = [int(line) for line in done.stdout.split()]
    assert len(handed) == count
    for number, least in enumerate(handed):
        scan = journal.scan(tmp_path / f"{number}-i.journal")
        found = [record.payload for record in scan.records if record.type != journal.Type.STATS]
        assert scan.damage is None, f"trial {number}: {scan.damage}"
        # The exception may have hit after a record was written and before the script counted it.
        assert len(found) - least in (0, 1), f"trial {number}"
        assert found == [i.to_bytes(4, "little") * 50 for i in range(len(found))]
    tell("exceptions while writing", Counter({"nothing lost or duplicated": count}))


INTERRUPTED = """
import random, signal
class Blue(BaseException): pass
def raises(*_): raise Blue
signal.signal(signal.SIGALRM, raises)
# Python swallows an exception in a weak reference's callback (of an ended thread): raise it again.
sys.unraisablehook = lambda _: signal.setitimer(signal.ITIMER_REAL, 0.001)
for trial in range({count}):
    one = type(writer)(path.with_name(f"{{trial}}-i.journal"), b"", 1 << 28, stats, failed, True)
    number = 0
    try:
        signal.setitimer(signal.ITIMER_REAL, random.Random(trial).uniform(0.0002, 0.004))
        while True:
            one.put(12, number.to_bytes(4, "little") * 50, 200)
            number += 1
            if number % 5 == 0: one.commit()
    except Blue:
        pass
    one.close()
    print(number, flush=True)
"""


def test_an_exception_at_any_moment_does_not_stop_a_ring(tmp_path: Path, tell: Tell) -> None:
    """A signal handler raises while the scheduler's thread starts a new segment of the ring."""
    count = trials(40, 400)
    done = hand_over(tmp_path / "0.journal", TURNED_OVER.format(count=count), durability="step")
    assert done.returncode == 0, done.stderr
    turned = re.findall(r"^turned (\d+)$", done.stdout, re.MULTILINE)
    assert len(turned) == count and all(int(one) > 10 for one in turned), turned
    for number in range(count):
        scan = journal.scan(tmp_path / f"{number}-i.journal")
        assert scan.damage is None, f"trial {number}: {scan.damage}"
        handed = [
            int.from_bytes(one.payload[:8], "little")
            for one in scan.records
            if one.type == 12 and len(one.payload) == 400  # not the gap for the discarded segments
        ]
        assert handed == sorted(set(handed)), f"trial {number}"
    tell("exceptions while a ring turns over", Counter({"continued, nothing duplicated": count}))


TURNED_OVER = """
import random, signal
class Blue(BaseException): pass
armed = False
def raises(*_):
    if armed: raise Blue
signal.signal(signal.SIGALRM, raises)
for trial in range({count}):
    chance = random.Random(trial)
    folder = path.with_name(f"{{trial}}-i.journal")
    one = type(writer)(folder, b"", 1 << 28, stats, failed, True, 0.02)
    for number in range(300):
        if number % 20 == 0: signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0001, 0.003))
        try:
            armed = True
            one.put(12, number.to_bytes(8, "little") * 50, 400)
            one.commit()
            time.sleep(0.0002)
            armed = False
        except Blue:
            armed = False
    before = one.breaks
    while one.breaks == before: time.sleep(0.001)
    one.close()
    print("turned", one.breaks, flush=True)
"""


def test_a_forked_child_exits_without_waiting(tmp_path: Path) -> None:
    """The child inherits our `atexit` handler, but no thread that could respond to it."""
    script = "import atexit, os\natexit.register(writer.close)\nbegan = time.monotonic()\npid = os.fork()\n"
    script += "if not pid: sys.exit(0)\nos.waitpid(pid, 0)\nprint(time.monotonic() - began < 2)"
    done = hand_over(tmp_path / "r-1-0.journal", script)
    assert done.stdout.split() == ["True"], done.stderr


@pytest.mark.parametrize("held", ["_stop", "_tried_rest"])
@pytest.mark.parametrize("gone", [False, True])
def test_a_fork_waits_for_no_lock_that_a_thread_of_its_parent_holds(
    held: str, gone: bool, tmp_path: Path
) -> None:
    done = hand_over(tmp_path / "r-1-0.journal", HELD.format(held=held, gone=gone))
    assert done.stdout.split() == ["True"], done.stderr


HELD = """
import os, signal, threading
holds, over = threading.Event(), threading.Event()
def hold():
    with writer.{held}._cond:
        writer._gone = {gone}  # the thread has begun to shut down
        holds.set()
        over.wait()
threading.Thread(target=hold).start()
holds.wait()
pid = os.fork()
if not pid:
    writer.commit()
    writer.close()
    os._exit(0)
ended = lambda: os.waitpid(pid, os.WNOHANG) == (pid, 0)
until = time.monotonic() + 5
while not (done := ended()) and time.monotonic() < until: time.sleep(0.01)
print(done or os.kill(pid, signal.SIGKILL))
over.set()
"""


def test_forks_under_load_do_not_write_to_the_parents_journal(tmp_path: Path) -> None:
    """The children write as if the journal were theirs, no matter who held the lock at the fork."""
    path = tmp_path / "r-1-0.journal"
    done = hand_over(path, FORKS, room=1 << 28, durability="step")
    assert done.returncode == 0, done.stderr
    assert num_found(path, tmp_path) == 30 * 300 + 1


FORKS = """
import os
children = []
for first in range(1, 9001, 300):
    hand_over(first, first + 300)
    pid = os.fork()
    if not pid:
        for type, payload in records[first:first + 300]:
            writer.put(type, payload, len(payload))
            writer.commit()
        writer.close()
        os._exit(0)
    children.append(pid)
statuses = [os.waitpid(pid, 0)[1] for pid in children]
writer.close()
raise SystemExit(any(statuses))
"""


def test_a_spawned_process_does_not_hold_the_journal_open(tmp_path: Path) -> None:
    path = tmp_path / "r-1-0.journal"
    done = hand_over(path, SPAWNS)
    assert done.returncode == 0, done.stderr
    assert str(path) not in done.stdout and "/dev/null" in done.stdout


SPAWNS = """
import subprocess
subprocess.run(["sh", "-c", "ls -l /proc/self/fd < /dev/null"], close_fds=False, check=True)
"""
