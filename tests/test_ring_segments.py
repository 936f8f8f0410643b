"""The segments of a ring: whichever are left, however they end, only those that follow each other are joined."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from children import specdiff, wait_for
from journalled import Record, records_of
from specdiff.cli.inputs import bundled
from specdiff.recorders import hdf5, journal
from specdiff.recorders.build import build
from specdiff.recorders.capture.journal_file import JournalFile
from specdiff.recorders.capture.ring import Ring
from specdiff.recorders.capture.writer import JournalWriter
from specdiff.recorders.recover import DAMAGED, Recovered, is_locked, recover
from specdiff.recorders.run import Stats
from specdiff.recorders.schema import Kind
from specdiff.recorders.wire import pack_event
from test_faults_disk import hand_over

MIX = hdf5.load(bundled() / "0.5.23-random.h5")
STATS = Stats(0, 0, 0, None, None, None, None, 0, False)
HOUR = 3600.0


def ring_of(folder: Path, ring_s: float, first: Record) -> JournalWriter:
    framed = journal.frame(*first)
    return JournalWriter(folder, framed, 1 << 30, lambda _: STATS, print, ring_s=ring_s)


def twelve_segments(folder: Path) -> Path:
    """Write the bundled recording as a ring of twelve segments. Only a `keep` starts a new one."""
    run, *records = records_of(MIX)
    writer = ring_of(folder / "r-1-0.journal", HOUR, run)
    size = len(records) // 12 + 1
    for first in range(0, len(records), size):
        for type, payload in records[first : first + size]:
            writer.put(type, payload, len(payload))
        assert writer.keep(folder / f"kept-{first}", 5)
    writer.close()
    return folder / "r-1-0.journal"


def test_frequent_keeps_do_not_shorten_a_ring(tmp_path: Path) -> None:
    """Each `keep` starts a segment. The oldest are deleted by age, not by number."""
    kinds = MIX.events.kind.tolist()
    assert build(twelve_segments(tmp_path)).events.kind.tolist() == kinds
    first, *_, last = sorted(tmp_path.glob("kept-*"), key=lambda path: int(path.name[5:]))
    assert build(last).events.kind.tolist() == kinds
    assert build(first).events.kind.tolist() == kinds[: len(build(first).events.kind)] != kinds


def test_a_ring_deletes_segments_that_are_older_than_its_time(tmp_path: Path) -> None:
    run, *records = records_of(MIX)
    writer = ring_of(tmp_path / "r-1-0.journal", 0.2, run)
    for type, payload in records[:100]:
        writer.put(type, payload, len(payload))
    wait_for(lambda: writer.breaks > 11, "turns")
    writer.close()
    assert len(list((tmp_path / "r-1-0.journal").iterdir())) <= 10
    assert build(tmp_path / "r-1-0.journal").events.kind.tolist() == [Kind.GAP]


@pytest.mark.parametrize("number", [2, 5, 12])
def test_a_missing_segment_becomes_a_gap(number: int, tmp_path: Path) -> None:
    path = twelve_segments(tmp_path)
    (path / f"{number:08}.segment").unlink()
    found = build(path)
    kinds, gap = found.events.kind.tolist(), MIX.events.kind.tolist()
    at = kinds.index(Kind.GAP)
    behind = len(kinds) - at - 1
    assert kinds[:at] == gap[:at] and kinds[at + 1 :] == gap[len(gap) - behind :]
    assert len(kinds) < len(gap) and found.damage is None


def test_a_segment_cut_between_two_records_is_followed_by_a_gap(tmp_path: Path) -> None:
    """No kill leaves such a cut if another segment follows, so the end must have been lost."""
    path = twelve_segments(tmp_path) / "00000003.segment"
    last = journal._scan_file(path).records[-2]
    os.truncate(path, last.offset)
    assert build(path.parent).gaps.dropped.tolist() == [1]


def test_recover_keeps_all_segments_of_a_ring_damaged_in_the_middle(tmp_path: Path) -> None:
    path = twelve_segments(tmp_path)
    segment = path / "00000003.segment"
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)
    (outcome,) = recover(tmp_path)
    assert isinstance(outcome, Recovered)
    assert outcome.damaged == path.with_name(path.name + DAMAGED)
    assert len(list(outcome.damaged.iterdir())) == 13


def test_requests_that_no_segment_names_get_placeholder_ids(tmp_path: Path) -> None:
    """The result of a request may come in a later segment than the last one that names it. Here no segment names it."""
    run, *records = records_of(MIX)
    named = [one for one in records if one[0] != journal.Type.REQUEST]
    folder = tmp_path / "j"
    folder.mkdir()
    (folder / "00000001.segment").write_bytes(journal.HEADER + journal.frames([run, *named]))
    found = build(folder)
    assert found.rids == tuple(f"forgotten-{i}" for i in range(len(MIX.rids)))
    assert np.array_equal(found.result_rows.qid, MIX.result_rows.qid)


def test_a_ring_in_use_counts_as_locked_at_every_moment(tmp_path: Path) -> None:
    path = tmp_path / "r-1-0.journal"
    child = subprocess.Popen([sys.executable, "-c", TURNS.format(path=str(path))])
    try:
        wait_for(
            lambda: path.exists() and max(os.listdir(path), default="") > "00000009.segment",
            "turns",
        )
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert is_locked(path)
    finally:
        child.kill()
        child.wait()
    assert not is_locked(path)


TURNS = """
import sys, time
from pathlib import Path
from specdiff.recorders.capture.writer import JournalWriter
writer = JournalWriter(Path({path!r}), b"", 1 << 20, lambda _: None, print, ring_s=8e-4)
while True:
    writer._guarded(writer._drain)
"""


def test_a_recover_killed_while_deleting_segments_leaves_no_half_ring(tmp_path: Path) -> None:
    """The process is killed when it deletes the second segment."""
    path = twelve_segments(tmp_path)
    killed = subprocess.run([sys.executable, "-c", KILLED.format(path=str(tmp_path))], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not path.exists() and list(tmp_path.glob("*.journal.done"))
    done = specdiff("recover", tmp_path)
    assert done.returncode == 0, done.stderr
    (found,) = tmp_path.glob("*.h5")
    assert not list(tmp_path.glob("*.journal*"))
    assert hdf5.load(found).events.kind.tolist() == MIX.events.kind.tolist()


KILLED = """
import os, signal, sys
from pathlib import Path
from specdiff.recorders.recover import recover
deleted = []
def watch(event, args):
    if event == "os.remove" and str(args[0]).endswith(".segment"):
        deleted.append(args)
        if len(deleted) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
recover(Path({path!r}))
"""


def test_a_ring_that_cannot_start_a_segment_goes_on_in_the_old_one(tmp_path: Path) -> None:
    """Its folder was moved. It tries to start a segment only once a second, because each attempt takes room."""
    run, *records = records_of(MIX)
    writer = ring_of(tmp_path / "j", 0.08, run)
    (tmp_path / "j").rename(tmp_path / "moved")
    for type, payload in records[:50]:
        writer.put(type, payload, len(payload))
        time.sleep(0.02)
    writer.close()
    (segment,) = (tmp_path / "moved").iterdir()
    types = [one.type for one in journal._scan_file(segment).records]
    assert len(types) > 40 and types.count(journal.Type.NEXT) <= 3


def test_no_segment_begins_while_a_disk_refuses_what_belongs_to_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full after a record and a half."""
    (type, payload), *records = records_of(MIX)[:6]
    first = journal.frame(type, payload)
    refused: list[OSError] = []
    ring = Ring(tmp_path / "j", HOUR, lambda number: True)
    file = JournalFile(tmp_path / "j", first, ring, refused.append, print)
    size, half = len(journal.frame(*records[0])), len(journal.frame(*records[1])) // 2
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", DiskWithRoom(size + half).pwrite)
        file.take(deque((*record, 10, None) for record in records))
        assert not file.write() and len(refused) == 1
        assert (file.taken, file.written) == (50, 10)
        assert not file.turn_over() and ring.number == 1
    assert file.write() and file.written == 50
    assert file.turn_over() and ring.number == 2 and len(refused) == 1
    file.close()
    scan = journal.scan(tmp_path / "j")
    # The second segment repeats what the first one says of the run and of its requests.
    once = dict.fromkeys((one.type, one.payload) for one in scan.records)
    assert list(once) == [(type, payload), *records] and scan.damage is None


class DiskWithRoom:
    """Has room for some bytes, takes them piece by piece, and refuses the rest."""

    def __init__(self, room: int) -> None:
        self._room, self._pwrite = room, os.pwrite

    def pwrite(self, fd: int, data: memoryview, at: int) -> int:
        if not self._room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = self._pwrite(fd, data[: min(self._room, 50)], at)
        self._room -= done
        return done


def test_a_partial_copy_of_a_ring_is_deleted_once_its_server_is_gone(tmp_path: Path) -> None:
    """A server killed during a `flush` leaves one. The ring itself still has everything in it."""
    half = tmp_path / "r-1-0.1.journal.partial"
    child = subprocess.Popen(
        [sys.executable, "-c", TURNS.format(path=str(tmp_path / "r-1-0.journal"))]
    )
    try:
        wait_for(lambda: is_locked(tmp_path / "r-1-0.journal"), "a ring")
        half.mkdir()
        recover(tmp_path)
        assert half.exists()
    finally:
        child.kill()
        child.wait()
    recover(tmp_path)
    assert not half.exists()


@pytest.mark.parametrize("links", [True, False])
def test_a_kept_copy_appears_under_its_name_only_when_it_is_complete(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then nothing there looks like a journal. This holds on a file system without links, too."""
    run, *records = records_of(MIX)
    seen: list[list[str]] = []

    def link(path: Path, other: Path) -> None:
        seen.append([one.name for one in tmp_path.iterdir() if one.name.endswith(".journal")])
        if not links:
            raise PermissionError("no links here")
        real(path, other)

    real = os.link
    writer = ring_of(tmp_path / "r-1-0.journal", HOUR, run)
    for type, payload in records:
        writer.put(type, payload, len(payload))
    monkeypatch.setattr(os, "link", link)
    assert writer.keep(tmp_path / "r-1-0.1.journal", 5)
    writer.close()
    assert seen == [["r-1-0.journal"]]
    assert build(tmp_path / "r-1-0.1.journal").events.kind.tolist() == MIX.events.kind.tolist()


def test_the_ring_goes_on_while_a_slow_copy_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each link waits until the ring has started two more segments."""
    run, *records = records_of(MIX)
    writer = ring_of(tmp_path / "r-1-0.journal", 4, run)
    for type, payload in records:
        writer.put(type, payload, len(payload))
    real = os.link

    def link(path: Path, other: Path) -> None:
        number = writer.breaks
        wait_for(lambda: writer.breaks > number + 1, "turns")
        real(path, other)

    monkeypatch.setattr(os, "link", link)
    assert writer.keep(tmp_path / "r-1-0.1.journal", 5)
    writer.close()
    assert build(tmp_path / "r-1-0.1.journal").damage is None
    assert build(tmp_path / "r-1-0.journal").damage is None


def test_a_copy_of_a_ring_is_refused_if_every_segment_was_deleted_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy without segments would stay for good, because no recording can be built from it."""
    run, *_ = records_of(MIX)
    writer = ring_of(tmp_path / "r-1-0.journal", 0.05, run)
    real = os.link

    def link(path: Path, other: Path) -> None:
        wait_for(lambda: not path.exists(), "the segment's end")
        real(path, other)

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(OSError, match=r"were deleted .* a longer --ring than 0\.05s"):
        writer.keep(tmp_path / "r-1-0.1.journal", 5)
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["r-1-0.journal"]


def test_keep_on_a_closed_ring_fails_and_starts_no_segment(tmp_path: Path) -> None:
    run, *_ = records_of(MIX)
    writer = ring_of(tmp_path / "j", HOUR, run)
    writer.close()
    assert not writer.keep(tmp_path / "kept", 1)
    assert len(list((tmp_path / "j").iterdir())) == 1


def test_a_stray_file_in_a_ring_is_ignored(tmp_path: Path) -> None:
    path = twelve_segments(tmp_path)
    (path / "00000002.old.segment").write_bytes(b"of another program")
    assert build(path).events.kind.tolist() == MIX.events.kind.tolist()


def test_a_ring_that_cannot_begin_leaves_no_folder(tmp_path: Path) -> None:
    script = LIMITED.format(folder=str(tmp_path / "ring"))
    done = hand_over(tmp_path / "0.journal", script)
    assert "OSError" in done.stdout and not (tmp_path / "ring").exists(), done.stderr


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (5, resource.RLIM_INFINITY))
try:
    type(writer)(Path({folder!r}), b"", 1 << 28, stats, failed, False, 60)
except OSError as error:
    print("OSError", error)
"""


def test_a_gap_in_the_middle_of_a_segment_is_kept(tmp_path: Path) -> None:
    """When segments are joined, only the gap at the head of a segment is skipped. It stands for what came before."""
    segment = twelve_segments(tmp_path) / "00000002.segment"
    records = [(one.type, one.payload) for one in journal._scan_file(segment).records]
    records.insert(len(records) // 2, (Kind.GAP, pack_event(Kind.GAP, 1, 1, (7,))))
    segment.write_bytes(journal.HEADER + journal.frames(records))  # type: ignore[arg-type]
    found = build(segment.parent)
    assert found.gaps.dropped.tolist() == [7]
    assert len(found.events.kind) == len(MIX.events.kind) + 1
