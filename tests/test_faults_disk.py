"""Disks that are full, gone or missing.

The writer's process continues and reports it once, and what was written is recovered.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from children import specdiff
from disks import ext4, small_disk
from faults import FULL
from journalled import rebuilt, records_of, same_content
from specdiff.cli.inputs import bundled
from specdiff.recorders import hdf5, journal
from specdiff.recorders.recover import NotRecovered, Recovered, is_locked, recover
from specdiff.recorders.run import stats_from_json

RECORDING = bundled() / "0.5.23-random.h5"
TIMES = 10  # 13,000 records, 2.3 MB: more than the disk, the queue and one write can take
ROOM = 1 << 19
SCRIPT = Path(__file__).parent / "hand_over.py"


def hand_over(
    path: Path, then: str, *, room: int = ROOM, durability: str = "50ms"
) -> subprocess.CompletedProcess[str]:
    arguments = [path, RECORDING, TIMES, room, durability, then]
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def complaints(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("specdiff:")]


def num_found(path: Path, folder: Path) -> int:
    """Return how many records are in the journal.

    They must be the first ones handed over, unchanged, and be recovered.
    """
    records = records_of(hdf5.load(RECORDING), TIMES)
    aside = folder / "aside"
    aside.mkdir()
    shutil.copy(path, aside / path.name)
    scan = journal.scan(path)
    found = [(one.type, one.payload) for one in scan.records if one.type != journal.Type.STATS]
    assert found == records[: len(found)] and scan.damage is None
    (outcome,) = recover(aside)
    assert isinstance(outcome, Recovered)
    assert same_content(hdf5.load(outcome.path), rebuilt(records[: len(found)], folder))
    return len(found)


@pytest.mark.parametrize("durability", ["50ms", "step"])
def test_a_full_disk_stops_only_the_recorder(durability: str, tmp_path: Path) -> None:
    """There is room for 400 KB on the disk and 0.5 MB in the queue. The log reports it once."""
    with small_disk(tmp_path / "disk", 400) as disk:
        (disk / "filler").write_bytes(bytes(16 << 10))
        path = disk / "r-1-0.journal"
        done = hand_over(path, STOPS, durability=durability)
        assert done.returncode == 0, done.stderr
        (said,) = complaints(done.stderr)
        assert "No space left on device" in said and str(path) in said
        assert path.stat().st_size > 370_000, "the disk was not filled"
        assert 1500 < num_found(path, tmp_path) < int(done.stdout)
        (disk / "filler").unlink()
        # Now there is room for only a part of the recording: HDF5's worst case.
        (outcome,) = recover(disk)
        assert isinstance(outcome, NotRecovered) and "No space left" in outcome.why
        assert [entry.name for entry in disk.iterdir()] == [path.name]
        refused = specdiff("recover", disk)
        assert refused.returncode == 128, "HDF5 crashes at exit after a full disk"


# The writer stops for good, closes the file and accepts nothing more. The process ends normally.
STOPS = """
hand_over(1)
wait_for(lambda: writer.stopped)
if handed[0] == len(records): raise SystemExit("there was room for all")
if writer.has_room(1): raise SystemExit("it takes more")
writer.put(12, b"never", 5)
writer.commit()
writer.close()
"""


def test_a_disk_that_is_full_for_a_while_loses_no_records(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 600) as disk:
        (disk / "filler").write_bytes(bytes(300 << 10))
        path = disk / "r-1-0.journal"
        done = hand_over(path, WAITS.format(filler=disk / "filler"), room=1 << 22)
        assert done.returncode == 0, done.stderr
        assert len(complaints(done.stderr)) == 1
        assert num_found(path, tmp_path) == int(done.stdout.split()[-1]) == 2501
        assert journal.scan(path).records[-1].type == journal.Type.STATS


WAITS = """
hand_over(1, 2501)
wait_for(lambda: writer.error)
Path("{filler}").unlink()
writer.close()
"""


def test_a_disk_with_room_again_after_the_end_loses_no_records(tmp_path: Path) -> None:
    """Recording is over, and the disk refuses the rest.

    The thread keeps trying for as long as the process lives.
    """
    path = tmp_path / "r-1-0.journal"
    done = hand_over(path, LIMITED + LATER, room=1 << 22)
    assert done.returncode == 0, done.stderr
    assert num_found(path, tmp_path) == 2501
    assert journal.scan(path).records[-1].type == journal.Type.STATS


LATER = """
hand_over(1, 2501)
wait_for(lambda: writer.error)
began = time.monotonic()
writer.close()
if time.monotonic() - began > 3: raise SystemExit("it waits for the disk")
if writer.stopped or not writer.waiting_bytes: raise SystemExit("it has let go")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
wait_for(lambda: writer.stopped)
if writer.waiting_bytes: raise SystemExit("something is left")
"""


@pytest.mark.skipif(not FULL, reason="takes a while: make faults")
def test_no_step_waits_for_a_disk_that_hangs(tmp_path: Path) -> None:
    """An ext4 is frozen for a second, eight times. Two busy threads compete with the writer's."""
    with ext4(tmp_path / "image", tmp_path / "disk") as disk:
        done = hand_over(disk / "r-1-0.journal", FROZEN.format(disk=disk), room=1 << 28)
        assert done.returncode == 0, done.stderr
        assert num_found(disk / "r-1-0.journal", tmp_path) > 300


FROZEN = """
import subprocess, threading
over, longest, at = threading.Event(), 0, 1
def busy():
    while not over.is_set(): sum(range(20_000))
def freeze():
    time.sleep(0.3)
    subprocess.run(["fsfreeze", "-f", "{disk}"], check=True)
    time.sleep(1)
    subprocess.run(["fsfreeze", "-u", "{disk}"], check=True)
for _ in range(2): threading.Thread(target=busy, daemon=True).start()
for trial in range(8):
    freezing = threading.Thread(target=freeze)
    freezing.start()
    while freezing.is_alive():
        for type, payload in records[at : at + 2]: writer.put(type, payload, len(payload))
        at, began = at + 2, time.monotonic()
        writer.commit()
        longest = max(longest, time.monotonic() - began)
        while time.monotonic() < began + 0.004: pass
over.set()
writer.close()
if longest > 0.8: raise SystemExit(f"a step took {{longest:.2f}} s")
"""


def test_memory_stays_bounded_while_the_disk_hangs(tmp_path: Path) -> None:
    """Request records are never dropped, because other records refer to them.

    What was queued is written when the hang ends.
    """
    path = tmp_path / "r-1-0.journal"
    done = hand_over(path, HANGS)
    assert done.returncode == 0, done.stderr
    (said,) = complaints(done.stderr)
    assert "recording has stopped" in said
    scan = journal.scan(path)
    assert scan.damage is None
    found = [one.payload for one in scan.records if one.type == journal.Type.REQUEST]
    assert found == [b"%1000d" % i for i in range(int(done.stdout))]
    told = [stats_from_json(one.payload) for one in scan.records if one.type == journal.Type.STATS]
    assert told and not any(stats.closed for stats in told), "the journal looks complete"


HANGS = """
with writer._lock:  # which the thread holds while its write hangs
    for i in range(40_000):
        writer.put(journal.Type.REQUEST, b"%1000d" % i, 1000)
        if not writer.stopped: handed[0] = i
    time.sleep(0.05)
    writer.commit()
    if writer.waiting_bytes > 18_000_000: raise SystemExit("it takes more and more")
print(handed[0] + 1)
writer.close()
"""


def test_a_file_size_limit_is_handled_like_a_full_disk(tmp_path: Path) -> None:
    """This test needs no root. Python ignores SIGXFSZ, which would end another process."""
    path = tmp_path / "r-1-0.journal"
    done = hand_over(path, LIMITED + STOPS)
    assert done.returncode == 0, done.stderr
    (said,) = complaints(done.stderr)
    assert "File too large" in said
    assert 299_000 < path.stat().st_size <= 300_000, "not filled up to the last whole record"
    assert not is_locked(path)
    assert num_found(path, tmp_path) > 1000


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
"""


def test_what_was_written_before_the_disk_disappeared_is_recovered(tmp_path: Path) -> None:
    image, where = tmp_path / "image", tmp_path / "disk"
    with ext4(image, where) as disk:
        path = disk / "r-1-0.journal"
        done = hand_over(
            path, GONE.format(disk=disk) + STOPS.replace("hand_over(1)", "hand_over(2001)")
        )
        assert done.returncode == 0, done.stderr
        (said,) = complaints(done.stderr)
        assert "Input/output error" in said
    with ext4(image, where) as disk:
        assert num_found(disk / path.name, tmp_path) == 2001, (
            "what was written before is not all there"
        )


GONE = """
import disks
hand_over(1, 2001)
wait_for(lambda: not writer._queue)
time.sleep(0.1)
disks.take_away(Path("{disk}"))
"""


def test_a_journal_deleted_while_recording_is_noticed(tmp_path: Path) -> None:
    """Its descriptor is closed. Otherwise the deleted file would fill the disk unseen."""
    done = hand_over(tmp_path / "r-1-0.journal", DELETED + STOPS)
    assert done.returncode == 0, done.stderr
    (said,) = complaints(done.stderr)
    assert "cannot be written: it was deleted. The server goes on" in said


DELETED = """
import os
hand_over(1, 1000)
assert writer.flush(5)
path.unlink()
hand_over(1000, 1001)
assert not writer.flush(0.5) and writer.error == "it was deleted"
assert not any("deleted" in os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.exists())
"""


def test_a_moved_journal_is_still_written(tmp_path: Path) -> None:
    path, moved = tmp_path / "r-1-0.journal", tmp_path / "elsewhere"
    moved.mkdir()
    then = (
        f"hand_over(1, 1000)\npath.rename('{moved / path.name}')\nhand_over(1000)\nwriter.close()"
    )
    done = hand_over(path, then, room=1 << 24)
    assert (done.returncode, complaints(done.stderr)) == (0, []), done.stderr
    assert num_found(moved / path.name, tmp_path) == len(records_of(hdf5.load(RECORDING), TIMES))


@pytest.mark.parametrize("durability", ["50ms", "step"])
def test_the_recorder_does_not_write_into_a_reused_descriptor(
    durability: str, tmp_path: Path
) -> None:
    """Daemons close all files when they start.

    The next file that the server opens gets our descriptor's number.
    """
    path, mine = tmp_path / "r-1-0.journal", tmp_path / "mine"
    done = hand_over(path, STOLEN.format(mine=mine) + STOPS, durability=durability)
    assert done.returncode == 0, done.stderr
    (said,) = complaints(done.stderr)
    assert "closed its file descriptor" in said
    assert mine.read_bytes() == b"the server's"
    assert num_found(path, tmp_path) == 1


STOLEN = """
import os
number = writer._file.fd
os.close(number)
mine = open("{mine}", "wb")
if mine.fileno() != number: os.dup2(mine.fileno(), number)
mine.write(b"the server's"); mine.flush()
"""


def _full(folder: Path) -> Path:
    (folder / "filler").write_bytes(bytes(64 << 10))
    return folder / "r-1-0.journal"


def _missing(folder: Path) -> Path:
    return folder / "nowhere" / "r-1-0.journal"


@pytest.mark.parametrize("where", [_full, _missing])
def test_a_journal_that_cannot_be_started_is_removed(
    where: Callable[[Path], Path], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        path = where(disk)
        done = hand_over(path, "pass")
        assert "OSError" in done.stderr or "FileNotFoundError" in done.stderr
        assert not path.exists()
