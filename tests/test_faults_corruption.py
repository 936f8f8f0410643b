"""Damaged journals and recordings are never read as something else.

They were cut, flipped, zeroed, duplicated or mixed up.
"""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import damage
from faults import Tell, trials
from journalled import Record, journal_of, rebuilt, same_content
from specdiff.cli.inputs import bundled
from specdiff.recorders import hdf5, journal
from specdiff.recorders.build import build
from specdiff.recorders.errors import RecordingError
from specdiff.recorders.recording import Recording
from specdiff.recorders.recover import NotRecovered, Recovered, recover

RECORDINGS = sorted(bundled().glob("*.h5"))
FROZEN = sorted((bundled().parent / "frozen").glob("*.h5"))


@dataclass(frozen=True, slots=True)
class Whole:
    """An undamaged journal: where each record ends, and what is in it."""

    data: bytes
    ends: list[int]
    records: list[Record]

    @classmethod
    def of(cls, data: bytes, path: Path) -> Whole:
        path.write_bytes(data)
        found = journal.scan(path).records
        records: list[Record] = [(record.type, record.payload) for record in found]  # type: ignore[misc]
        starts = [record.offset for record in found]
        return cls(data, [*starts[1:], len(data)], records)

    def num_untouched(self, broken: bytes) -> int:
        """Return how many records end before the first changed byte."""
        size = min(len(self.data), len(broken))
        one, other = (np.frombuffer(data[:size], np.uint8) for data in (self.data, broken))
        different = np.flatnonzero(one != other)
        first = different[0] if len(different) else size
        return sum(end <= first for end in self.ends)


@pytest.fixture(scope="module")
def journals(tmp_path_factory: pytest.TempPathFactory) -> list[Whole]:
    path = tmp_path_factory.mktemp("journals") / "x.journal"
    return [Whole.of(journal_of(hdf5.load(each)), path) for each in RECORDINGS]


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
def test_a_journal_made_of_a_recording_builds_that_recording(
    recording: Path, tmp_path: Path
) -> None:
    """The trials below rely on this."""
    path, whole = tmp_path / "r-1-0.journal", hdf5.load(recording)
    path.write_bytes(journal_of(whole))
    again = build(path)
    assert same_content(again, whole) and (again.stats, again.damage) == (whole.stats, None)


def test_a_damaged_journal_is_recovered_up_to_its_damage(
    journals: list[Whole], tmp_path: Path, tell: Tell
) -> None:
    counts: Counter[str] = Counter()
    for seed in range(trials(1000, 10_000)):
        chance = random.Random(seed)
        whole = chance.choice(journals)
        broken, what = _damaged_journal(whole, journals, chance)
        counts[_check_journal(whole, broken, tmp_path, f"seed {seed}, {what}")] += 1
    tell("damaged journals", counts)


def _damaged_journal(
    whole: Whole, others: list[Whole], chance: random.Random
) -> damage.DamagedBytes:
    if chance.random() < 0.7:
        return damage.damaged(whole.data, chance)
    while True:
        broken, what = chance.choice(_OF_RECORDS)(whole, chance.choice(others), chance)
        if broken != whole.data:
            return broken, what


def _check_journal(whole: Whole, broken: bytes, folder: Path, what: str) -> str:
    path = folder / "r-1-0.journal"
    path.write_bytes(broken)
    num_untouched = whole.num_untouched(broken)
    try:
        recording = build(path)
    except RecordingError as error:
        assert not num_untouched, f"{what}: {error}"  # not even the run description was left
        assert str(path) in str(error)
        return "refused"
    assert same_content(recording, rebuilt(whole.records[:num_untouched], folder)), what
    if recording.damage is None:
        assert whole.data.startswith(broken), f"{what}: the damage is not reported"
        assert recording.stats is None, f"{what}: it looks complete"
        return "cut between records"
    start = [len(journal.HEADER), *whole.ends][num_untouched]
    assert f"at byte {start} of {len(broken)}" in recording.damage, what
    return "undamaged prefix"


# -- damage that leaves every record's own checksum valid


def _left_out(whole: Whole, _: Whole, chance: random.Random) -> damage.DamagedBytes:
    at, end = _record(whole, chance)
    return whole.data[:at] + whole.data[end:], f"the record at {at} left out"


def _cut_between(whole: Whole, _: Whole, chance: random.Random) -> damage.DamagedBytes:
    at, _end = _record(whole, chance)
    return whole.data[:at], f"cut between records at {at}"


def _twice(whole: Whole, _: Whole, chance: random.Random) -> damage.DamagedBytes:
    at, end = _record(whole, chance)
    return whole.data[:end] + whole.data[at:], f"the record at {at} twice"


def _swapped(whole: Whole, _: Whole, chance: random.Random) -> damage.DamagedBytes:
    at, end = _record(whole, chance)
    later = min(e for e in [*whole.ends, len(whole.data)] if e > end or e == len(whole.data))
    data = whole.data
    return data[:at] + data[end:later] + data[at:end] + data[later:], f"swapped at {at}"


def _of_another(whole: Whole, other: Whole, chance: random.Random) -> damage.DamagedBytes:
    at, end = _record(whole, chance)
    there, there_end = _record(other, chance)
    data = whole.data[:at] + other.data[there:there_end] + whole.data[end:]
    return data, f"another's record at {at}"


def _padding(whole: Whole, _: Whole, chance: random.Random) -> damage.DamagedBytes:
    at, _end = _record(whole, chance)
    place = at + 5 + chance.randrange(3)
    return damage.put(whole.data, place, b"\1"), f"byte {place}, which is padding"


def _record(whole: Whole, chance: random.Random) -> tuple[int, int]:
    which = chance.randrange(len(whole.ends))
    return [len(journal.HEADER), *whole.ends][which], whole.ends[which]


_OF_RECORDS: tuple[Callable[[Whole, Whole, random.Random], damage.DamagedBytes], ...] = (
    _left_out,
    _cut_between,
    _twice,
    _swapped,
    _of_another,
    _padding,
)


# -- recordings


def test_a_damaged_recording_is_refused_or_read_unchanged(tmp_path: Path, tell: Tell) -> None:
    counts = _damage_recordings(RECORDINGS + FROZEN, trials(1000, 20_000), tmp_path, damage.damaged)
    assert counts["refused"] > 0.95 * counts.total(), "most bytes of a recording matter"
    tell("damaged HDF5 files", counts)


def test_damaged_texts_of_an_old_recording_never_hang_the_reader(
    tmp_path: Path, tell: Tell
) -> None:
    """HDF5 has no checksum for them and loops forever on some.

    A separate process makes that visible as a timeout.
    """
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_faults_corruption as here;"
        "here.damage_heaps(int(sys.argv[2]), here.Path(sys.argv[3]))"
    )
    count = trials(300, 1_000)
    arguments = [str(Path(__file__).parent), str(count), str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=60 + count / 5,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    refused = int(done.stdout)
    tell(
        "damaged texts of old files",
        Counter({"refused": refused, "read unchanged": count - refused}),
    )


def damage_heaps(count: int, folder: Path) -> None:
    def in_the_heap(data: bytes, chance: random.Random) -> damage.DamagedBytes:
        start = data.index(b"GCOL")
        end = start + 4096
        broken, what = damage.damaged(data[start:end], chance)
        if chance.random() < 0.5:  # change the size of an object
            at = chance.choice((16, 56, 144)) + 8
            heap = bytearray(data[start:end])
            struct.pack_into("<Q", heap, at, chance.choice((0, 1, 8, 2**63, 2**64 - 8)))
            broken, what = bytes(heap), f"size at {at}"
        return data[:start] + broken[: end - start].ljust(end - start, b"\0") + data[end:], what

    # Later versions have no such heap.
    heaps = [path for path in FROZEN if path.name.startswith(("v1-", "v2-"))]
    print(_damage_recordings(heaps, count, folder, in_the_heap)["refused"])


def _damage_recordings(
    paths: list[Path],
    count: int,
    folder: Path,
    harm: Callable[[bytes, random.Random], damage.DamagedBytes],
) -> Counter[str]:
    whole = [(path.name, path.read_bytes(), hdf5.load(path)) for path in paths]
    counts: Counter[str] = Counter()
    for seed in range(count):
        chance = random.Random(seed)
        name, data, recording = chance.choice(whole)
        broken, what = harm(data, chance)
        said = _check_recording(recording, broken, folder, f"seed {seed}, {name}, {what}")
        counts[said] += 1
    return counts


def _check_recording(whole: Recording, broken: bytes, folder: Path, what: str) -> str:
    path = folder / "x.h5"
    path.write_bytes(broken)
    try:
        found = hdf5.load(path)
    except RecordingError as error:
        assert str(path) in str(error), what
        return "refused"
    assert same_content(found, whole), f"{what}: read as something else"
    same = [getattr(found, name) == getattr(whole, name) for name in ("stats", "damage", "version")]
    assert all(same), f"{what}: read as something else"
    return "read unchanged"


# -- what `recover` does with a damaged journal


def test_recover_keeps_a_journal_with_records_after_its_damage(
    journals: list[Whole], tmp_path: Path
) -> None:
    whole, path = journals[0], tmp_path / "r-1-0.journal"
    broken = bytearray(whole.data)
    broken[whole.ends[40] + 20] ^= 1
    path.write_bytes(broken)
    (outcome,) = recover(tmp_path)
    assert isinstance(outcome, Recovered) and outcome.damaged is not None
    assert outcome.damaged.read_bytes() == broken and not path.exists()
    assert outcome.damage is not None and f"at byte {whole.ends[40]} " in outcome.damage
    assert recover(tmp_path) == []


def test_recover_deletes_a_journal_that_ends_in_a_torn_record(
    journals: list[Whole], tmp_path: Path
) -> None:
    whole, path = journals[0], tmp_path / "r-1-0.journal"
    path.write_bytes(whole.data[: whole.ends[40] + 20])
    (outcome,) = recover(tmp_path)
    assert isinstance(outcome, Recovered) and outcome.damage and outcome.damaged is None
    assert [entry.name for entry in tmp_path.iterdir()] == [outcome.path.name]


def test_an_interrupted_recover_is_finished_by_the_next_one(
    journals: list[Whole], tmp_path: Path
) -> None:
    path = tmp_path / "r-1-0.journal"
    path.write_bytes(journals[0].data)
    (first,) = recover(tmp_path)
    assert isinstance(first, Recovered)
    # As if it had been killed right after it put the recording in place.
    path.write_bytes(journals[0].data)
    (second,) = recover(tmp_path)
    assert isinstance(second, Recovered) and second.path == first.path
    assert [entry.name for entry in tmp_path.iterdir()] == [first.path.name]
    path.write_bytes(journals[0].data[: journals[0].ends[-2]])  # another journal with the same name
    (third,) = recover(tmp_path)
    assert isinstance(third, NotRecovered) and "--force" in third.why and path.exists()
