"""The journal's writer in processes that are killed, fork, fill the disk, or are too slow."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from children import python, wait_for
from specdiff.recorders import journal
from specdiff.recorders.capture import writer as writers
from specdiff.recorders.capture.overhead import Overhead
from specdiff.recorders.capture.writer import JournalWriter
from specdiff.recorders.recover import is_locked
from specdiff.recorders.run import Stats, stats_from_json
from specdiff.recorders.schema import Kind

# argv: the journal, the number of records, and what to do then
WRITER = """
import os, sys, time
from pathlib import Path
from specdiff.recorders.capture.writer import JournalWriter
from specdiff.recorders.run import Stats
from specdiff.recorders.schema import Kind

path, count, then = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
stats = lambda closed: Stats(count, 0, 0, None, None, None, None, 0, closed)
if then == "full":
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
writer = JournalWriter(path, b"", 1 << 24, stats, print)
for i in range(count):
    payload = i.to_bytes(4, "little") * 25
    if writer.has_room(len(payload)):
        writer.put(Kind.GAP, payload, len(payload))
if then == "full":
    time.sleep(0.3)
    print("error:", writer.error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
if then == "wait":
    print("written", flush=True)
    time.sleep(60)
if then == "fork" and os.fork() == 0:
    writer.abandon()
    writer.put(Kind.GAP, b"from the child", 0)
    time.sleep(0.2)
    os._exit(0)
if then == "fork":
    os.wait()
writer.close()
"""

# argv: the journal. The thread is slow to write what it has taken, and the step ends meanwhile.
SLOW_THREAD = """
import os, sys, threading, time
from pathlib import Path
from specdiff.recorders.capture.writer import JournalWriter
from specdiff.recorders.schema import Kind

write, has_taken = os.pwrite, threading.Event()
def slowly(*args):
    if threading.current_thread().name == "specdiff-journal":
        has_taken.set()
        time.sleep(0.5)
    return write(*args)
os.pwrite = slowly
writer = JournalWriter(Path(sys.argv[1]), b"", 1 << 24, lambda closed: None, print, every_step=True)
writer.put(Kind.GAP, bytes(100), 100)
has_taken.wait()
writer.commit()
os._exit(0)  # like a kill
"""


def numbers(path: Path) -> list[int]:
    """Return the record numbers. Each is checked against its whole payload."""
    found = []
    for record in journal.scan(path).records:
        if record.type == Kind.GAP:
            assert record.payload == record.payload[:4] * 25
            found.append(int.from_bytes(record.payload[:4], "little"))
    return found


def last_stats(path: Path) -> Stats:
    records = [item for item in journal.scan(path).records if item.type == journal.Type.STATS]
    return stats_from_json(records[-1].payload)


def test_everything_is_written_in_order(tmp_path: Path) -> None:
    path = tmp_path / "j"
    done = python(WRITER, path, "5000", "close")
    assert done.returncode == 0, done.stderr
    assert numbers(path) == list(range(5000))
    assert last_stats(path).closed
    assert journal.scan(path).damage is None
    assert not is_locked(path)


def test_a_killed_writer_leaves_whole_records_and_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), "2000", "wait"], stdout=subprocess.PIPE
    ) as child:
        wait_for(lambda: path.exists() and len(numbers(path)) == 2000, "the records")
        assert is_locked(path)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not is_locked(path)
    assert numbers(path) == list(range(2000))
    assert journal.scan(path).damage is None


def test_a_durable_step_waits_for_records_the_thread_has_taken(tmp_path: Path) -> None:
    done = python(SLOW_THREAD, tmp_path / "j")
    assert done.returncode == 0, done.stderr
    assert numbers(tmp_path / "j") == [0]


def test_a_forked_child_does_not_write(tmp_path: Path) -> None:
    path = tmp_path / "j"
    done = python(WRITER, path, "100", "fork")
    assert done.returncode == 0, done.stderr
    assert numbers(path) == list(range(100))


def test_a_full_disk_loses_no_records_and_is_retried(tmp_path: Path) -> None:
    path = tmp_path / "j"
    done = python(WRITER, path, "2000", "full")
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout
    assert numbers(path) == list(range(2000))


STATS = Stats(0, 0, 0, None, None, None, None, 0, False)


def test_a_disk_may_refuse_for_as_long_as_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That there was no room once, long ago, does not count."""
    monkeypatch.setattr(writers, "_RETRY_S", 0.01)
    writer = JournalWriter(tmp_path / "j", b"", 2000, lambda _: STATS, print)
    given = 0

    def give() -> bool:
        nonlocal given
        taken = writer.offer(Kind.GAP, given.to_bytes(4, "little") * 25, 100, (1, 1))
        given += taken
        return taken

    with writer._lock:
        while give():
            pass
    assert writer.flush(5)
    refused: list[int] = []

    def refuse(*_: object) -> int:
        refused.append(threading.get_ident())
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", refuse)
        assert give() and give()
        wait_for(lambda: len(refused) > 9, "many attempts")
        assert not writer.stopped and writer.error
    assert writer.flush(5) and not writer.error
    assert numbers(tmp_path / "j") == list(range(given))
    writer.close()


def test_a_durable_step_tries_a_disk_that_refuses_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Further attempts are left to the thread, so that they cost no step."""
    stats, tried = lambda _: STATS, []
    writer = JournalWriter(tmp_path / "j", b"", 1 << 20, stats, print, every_step=True)

    def refuse(*_: object) -> int:
        tried.append(threading.get_ident())
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", refuse)
        for _ in range(3):
            writer.put(Kind.GAP, bytes(100), 100)
            writer.commit()
    writer.close()
    assert len(numbers(tmp_path / "j")) == 3 and tried.count(threading.get_ident()) <= 1


def test_a_writer_without_a_thread_lets_go_of_its_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its lock would say for as long as the server lives that someone writes it."""

    def fails(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fails)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(RuntimeError):
        JournalWriter(tmp_path / "j", b"", 1 << 20, lambda _: STATS, print)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("way", ["offer", "put"])
def test_a_step_writes_only_what_waits_for_long(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the thread that writes, unless it does not get to run."""
    clock, late = 100.0, 0
    fake = SimpleNamespace(monotonic=lambda: clock, sleep=time.sleep)
    writer = JournalWriter(tmp_path / "j", b"", 1 << 20, lambda _: STATS, print)

    def noted() -> None:
        nonlocal late
        late += 1

    with writer._lock, monkeypatch.context() as patched:  # the thread does not get to run
        patched.setattr(writers, "time", fake)
        patched.setattr(writer, "_drain_late", noted)
        for after_s, found in ((0.0, 0), (0.02, 0), (0.006, 1)):
            clock += after_s
            getattr(writer, way)(Kind.GAP, bytes(100), 100, (1, 1))
            writer.commit()
            assert late == found
    writer.close()
    assert len(numbers(tmp_path / "j")) == 3


def test_a_late_step_does_not_wait_for_a_disk_that_the_thread_waits_for(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path / "j", b"", 1 << 20, lambda _: STATS, print)
    hangs, waits = threading.Event(), threading.Event()

    def hang() -> None:
        with writer._lock:
            hangs.set()
            waits.wait(2)

    other = threading.Thread(target=hang)
    other.start()
    hangs.wait()
    writer.put(Kind.GAP, bytes(100), 100)
    time.sleep(0.03)
    writer.commit()
    assert other.is_alive()
    waits.set()
    other.join()
    writer.close()
    assert len(numbers(tmp_path / "j")) == 1


def test_an_existing_journal_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b"someone else's")
    assert python(WRITER, path, "1", "close").returncode != 0
    assert path.read_bytes() == b"someone else's"


@given(st.lists(st.integers(0, 10**10), min_size=1, max_size=50))
def test_overhead_quantiles_are_close(spent: list[int]) -> None:
    overhead = Overhead()
    for ns in spent:
        overhead.spent += ns
        overhead.decoded()
        overhead.spent += 1
        overhead.prefilled()
        overhead.spent += 10**11
        overhead.idled()
    spent.sort()
    assert overhead.decode.max_ns == spent[-1]
    for q in (0.5, 0.99):
        exact = spent[min(int(-(-q * len(spent) // 1)) - 1, len(spent) - 1)]
        estimate = overhead.decode.quantile(q)
        assert estimate is not None
        assert exact <= estimate <= exact * (1 + 1 / 32) + 1
        assert overhead.prefill.quantile(q) == 1


@given(
    payloads=st.lists(st.binary(max_size=200), max_size=8),
    cut=st.floats(0, 1),
    bit=st.integers(0, 7),
    damage=st.sampled_from(["cut", "flip"]),
)
def test_a_damaged_journal_keeps_everything_before_the_damage(
    tmp_path_factory: pytest.TempPathFactory,
    payloads: list[bytes],
    cut: float,
    bit: int,
    damage: str,
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j"
    frames: list[bytes] = []
    for payload in payloads:
        before = journal.checksum_of(frames[-1] if frames else b"")
        frames.append(journal.frame(Kind.GAP, payload, before))
    body = b"".join(frames)
    at = int(cut * len(body))
    if damage == "cut":
        broken = bytearray(body[:at])
    else:
        broken = bytearray(body)
        if at < len(body):
            broken[at] ^= 1 << bit
    path.write_bytes(journal.HEADER + bytes(broken))
    scan = journal.scan(path)
    found = [record.payload for record in scan.records]
    whole, end = 0, 0
    while whole < len(frames) and end + len(frames[whole]) <= at:
        end += len(frames[whole])
        whole += 1
    assert found[:whole] == payloads[:whole]
    assert len(found) <= len(payloads)
    if found != payloads and not (damage == "cut" and at == end):
        assert scan.damage is not None
        assert scan.damage.offset == len(journal.HEADER) + end
    os.unlink(path)
