"""Disks that are full, gone or forbidden: the writer's process goes on, says so once, and what was written is recovered."""

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
from specdiff.recorders.recover import Kept, Recovered, is_locked, recover
from specdiff.recorders.run import stats_from_json

RECORDING = bundled() / "0.5.23-random.h5"
TIMES = 10  # 13,000 records, 2.3 MB: more than the disk, the queue and one write hold
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
    """How many records are in the journal: the first ones, each as it was handed over, and recovered as such."""
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
def test_full_disk_stops_the_recorder_and_nothing_else(durability: str, tmp_path: Path) -> None:
    """Room for 400 KB on the disk and 0.5 MB in the queue. The log says so once."""
    with small_disk(tmp_path / "disk", 400) as disk:
        (disk / "filler").write_bytes(bytes(16 << 10))
        path = disk / "r-1-0.journal"
        done = hand_over(path, STOPS, durability=durability)
        assert done.returncode == 0, done.stderr
        (said,) = complaints(done.stderr)
        assert "No space left on device" in said and str(path) in said
        assert path.stat().st_size > 370_000, "what there was room for was written"
        assert 1500 < num_found(path, tmp_path) < int(done.stdout)
        (disk / "filler").unlink()
        (outcome,) = recover(disk)  # there is room for a part of the recording: HDF5's worst case
        assert isinstance(outcome, Kept) and "No space left" in outcome.why
        assert [entry.name for entry in disk.iterdir()] == [path.name]
        refused = specdiff("recover", disk)
        assert refused.returncode == 128, "HDF5 crashes at exit after it has seen a full disk"


# It stops for good, lets go of the file, takes no more, and the process ends as it would.
STOPS = """
hand_over(1)
wait_for(lambda: writer.stopped)
if handed[0] == len(records): raise SystemExit("there was room for all")
if writer.has_room(1): raise SystemExit("it takes more")
writer.put(12, b"never", 5)
writer.commit()
writer.close()
"""


def test_a_disk_that_is_full_for_a_while_costs_nothing(tmp_path: Path) -> None:
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


def test_a_disk_with_room_again_behind_the_end_costs_nothing(tmp_path: Path) -> None:
    """Recording is over, and the disk does not take the rest: the thread goes on asking for as long as the process lives."""
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


@pytest.mark.skipif(not FULL, reason="takes a while; make faults")
def test_no_step_waits_for_a_disk_that_hangs(tmp_path: Path) -> None:
    """An ext4 that is frozen for a second, eight times, while two other threads keep the writer's from its turn."""
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


def test_a_disk_that_hangs_takes_no_memory_without_end(tmp_path: Path) -> None:
    """Of requests, which are never dropped as each is known by its number; what was queued is written when it ends."""
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
    assert told and not any(stats.closed for stats in told), "nobody is to think it whole"


HANGS = """
with writer._lock:  # as the thread holds it while its write hangs
    for i in range(40_000):
        writer.put(journal.Type.REQUEST, b"%1000d" % i, 1000)
        if not writer.stopped: handed[0] = i
    time.sleep(0.05)
    writer.commit()
    if writer.waiting_bytes > 18_000_000: raise SystemExit("it takes more and more")
print(handed[0] + 1)
writer.close()
"""


def test_a_limit_on_file_sizes_is_a_full_disk_for_everybody(tmp_path: Path) -> None:
    """No root is needed for this one. Python ignores SIGXFSZ, which would end another process."""
    path = tmp_path / "r-1-0.journal"
    done = hand_over(path, LIMITED + STOPS)
    assert done.returncode == 0, done.stderr
    (said,) = complaints(done.stderr)
    assert "File too large" in said
    assert 299_000 < path.stat().st_size <= 300_000, "to the last whole record"
    assert not is_locked(path)
    assert num_found(path, tmp_path) > 1000


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
"""


def test_a_disk_that_is_taken_away(tmp_path: Path) -> None:
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
        assert num_found(disk / path.name, tmp_path) == 2001, "what was written before it went"


GONE = """
import disks
hand_over(1, 2001)
wait_for(lambda: not writer._queue)
time.sleep(0.1)
disks.take_away(Path("{disk}"))
"""


def test_a_journal_that_is_deleted_under_way_is_noticed(tmp_path: Path) -> None:
    """And its descriptor given back: it would fill the disk, unseen."""
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


def test_a_journal_that_is_moved_is_written_on(tmp_path: Path) -> None:
    path, moved = tmp_path / "r-1-0.journal", tmp_path / "elsewhere"
    moved.mkdir()
    then = (
        f"hand_over(1, 1000)\npath.rename('{moved / path.name}')\nhand_over(1000)\nwriter.close()"
    )
    done = hand_over(path, then, room=1 << 24)
    assert (done.returncode, complaints(done.stderr)) == (0, []), done.stderr
    assert num_found(moved / path.name, tmp_path) == len(records_of(hdf5.load(RECORDING), TIMES))


@pytest.mark.parametrize("durability", ["50ms", "step"])
def test_a_server_that_closes_our_file_keeps_its_own(durability: str, tmp_path: Path) -> None:
    """As daemons do; the next file that it opens has our number."""
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
def test_a_journal_that_cannot_be_begun_is_not_left_behind(
    where: Callable[[Path], Path], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        path = where(disk)
        done = hand_over(path, "pass")
        assert "OSError" in done.stderr or "FileNotFoundError" in done.stderr
        assert not path.exists()
