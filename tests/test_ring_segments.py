"""The segments of a ring: however they come to an end, and whichever are left, nothing is joined that does not follow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from children import specdiff, wait_for
from journalled import Record, records_of
from specdiff.cli.inputs import bundled
from specdiff.recorders import hdf5, journal
from specdiff.recorders.build import build
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
    """The bundled recording in twelve segments, turned over by hand; that is said of none of them but by a `keep`."""
    run, *records = records_of(MIX)
    writer = ring_of(folder / "r-1-0.journal", HOUR, run)
    size = len(records) // 12 + 1
    for first in range(0, len(records), size):
        for type, payload in records[first : first + size]:
            writer.put(type, payload, len(payload))
        assert writer.keep(folder / f"kept-{first}", 5)
    writer.close()
    return folder / "r-1-0.journal"


def test_asked_over_and_over_a_ring_keeps_its_time(tmp_path: Path) -> None:
    """Each `keep` ends a segment; the oldest go by age, not by number."""
    kinds = MIX.events.kind.tolist()
    assert build(twelve_segments(tmp_path)).events.kind.tolist() == kinds
    first, *_, last = sorted(tmp_path.glob("kept-*"), key=lambda path: int(path.name[5:]))
    assert build(last).events.kind.tolist() == kinds
    assert build(first).events.kind.tolist() == kinds[: len(build(first).events.kind)] != kinds


def test_what_is_older_than_the_ring_goes(tmp_path: Path) -> None:
    run, *records = records_of(MIX)
    writer = ring_of(tmp_path / "r-1-0.journal", 0.2, run)
    for type, payload in records[:100]:
        writer.put(type, payload, len(payload))
    wait_for(lambda: writer.breaks > 11, "turns")
    writer.close()
    assert len(list((tmp_path / "r-1-0.journal").iterdir())) <= 10
    assert build(tmp_path / "r-1-0.journal").events.kind.tolist() == [Kind.GAP]


@pytest.mark.parametrize("number", [2, 5, 12])
def test_a_segment_that_is_missing_leaves_a_gap(number: int, tmp_path: Path) -> None:
    path = twelve_segments(tmp_path)
    (path / f"{number:08}.segment").unlink()
    found = build(path)
    kinds, gap = found.events.kind.tolist(), MIX.events.kind.tolist()
    at = kinds.index(Kind.GAP)
    behind = len(kinds) - at - 1
    assert kinds[:at] == gap[:at] and kinds[at + 1 :] == gap[len(gap) - behind :]
    assert len(kinds) < len(gap) and found.damage is None


def test_a_segment_that_lost_its_end_is_followed_by_a_gap(tmp_path: Path) -> None:
    """Cut exactly between two records, as no kill leaves it where another segment follows."""
    path = twelve_segments(tmp_path) / "00000003.segment"
    last = journal._scan_file(path).records[-2]
    os.truncate(path, last.offset)
    assert build(path.parent).gaps.dropped.tolist() == [1]


def test_behind_damage_in_the_midst_nothing_is_thrown_away(tmp_path: Path) -> None:
    path = twelve_segments(tmp_path)
    segment = path / "00000003.segment"
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)
    (outcome,) = recover(tmp_path)
    assert isinstance(outcome, Recovered)
    assert outcome.damaged == path.with_name(path.name + DAMAGED)
    assert len(list(outcome.damaged.iterdir())) == 13


def test_whom_no_segment_names_is_named_for_what_he_is(tmp_path: Path) -> None:
    """A result may come a segment after the last one that named its request: here none does."""
    run, *records = records_of(MIX)
    named = [one for one in records if one[0] != journal.Type.REQUEST]
    folder = tmp_path / "j"
    folder.mkdir()
    (folder / "00000001.segment").write_bytes(journal.HEADER + journal.frames([run, *named]))
    found = build(folder)
    assert found.rids == tuple(f"forgotten-{i}" for i in range(len(MIX.rids)))
    assert np.array_equal(found.result_rows.qid, MIX.result_rows.qid)


def test_a_ring_at_work_is_never_taken_for_one_that_is_over(tmp_path: Path) -> None:
    path = tmp_path / "r-1-0.journal"
    child = subprocess.Popen([sys.executable, "-c", TURNS.format(path=str(path))])
    try:
        wait_for(lambda: path.exists() and max(os.listdir(path)) > "00000009.segment", "turns")
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


def test_a_recover_that_is_killed_while_it_clears_up_leaves_no_half_ring(tmp_path: Path) -> None:
    """The process is killed by the second file that it deletes."""
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


def test_a_ring_that_cannot_go_on_stays_where_it_is(tmp_path: Path) -> None:
    """Its folder was moved: it tries to turn over once a second, not every time it looks, as each attempt takes room."""
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


def test_half_a_copy_of_a_ring_goes_when_its_server_is_gone(tmp_path: Path) -> None:
    """A server that is killed in the midst of a `flush`; the ring itself has all that is in the copy."""
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
def test_what_is_kept_is_whole_at_once(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system without links, too; nothing that could be taken for a journal stands there before."""
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


def test_nobody_waits_for_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it takes long, the ring goes on meanwhile; what it lets go of is not in the copy."""
    run, *records = records_of(MIX)
    writer = ring_of(tmp_path / "r-1-0.journal", 0.2, run)
    for type, payload in records:
        writer.put(type, payload, len(payload))
    real = os.link

    def link(path: Path, other: Path) -> None:
        number = writer.breaks
        wait_for(lambda: writer.breaks > number + 9, "turns")
        real(path, other)

    monkeypatch.setattr(os, "link", link)
    assert writer.keep(tmp_path / "r-1-0.1.journal", 5)
    writer.close()
    assert build(tmp_path / "r-1-0.journal").damage is None


def test_a_closed_ring_is_not_opened_again(tmp_path: Path) -> None:
    run, *_ = records_of(MIX)
    writer = ring_of(tmp_path / "j", HOUR, run)
    writer.close()
    assert not writer.keep(tmp_path / "kept", 1)
    assert len(list((tmp_path / "j").iterdir())) == 1


def test_a_stray_file_is_no_segment(tmp_path: Path) -> None:
    path = twelve_segments(tmp_path)
    (path / "00000002.old.segment").write_bytes(b"of somebody else")
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


def test_a_gap_that_the_recorder_itself_left_is_no_segments_head(tmp_path: Path) -> None:
    """Where a segment goes on, only the gap that stands for what came before it is passed over."""
    segment = twelve_segments(tmp_path) / "00000002.segment"
    records = [(one.type, one.payload) for one in journal._scan_file(segment).records]
    records.insert(len(records) // 2, (Kind.GAP, pack_event(Kind.GAP, 1, 1, (7,))))
    segment.write_bytes(journal.HEADER + journal.frames(records))  # type: ignore[arg-type]
    found = build(segment.parent)
    assert found.gaps.dropped.tolist() == [7]
    assert len(found.events.kind) == len(MIX.events.kind) + 1
