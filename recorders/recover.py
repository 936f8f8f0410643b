"""From the journals that processes left behind to recordings, however those processes died."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from . import manifest
from .build import build
from .build_lock import build_lock, built_of
from .errors import RecordingError, to_recover
from .hdf5 import is_saved, save
from .journal import PARTIAL, scan
from .names import JOURNAL, NOTE, pid_of, recording_name
from .notes import Note, read_notes
from .recording import Recording
from .runs import num_dropped
from .schema import Kind
from .scratch import clear

DAMAGED = ".damaged"  # behind a journal's name
# struct flock of 64-bit Linux: type, whence, start, length, process
_FLOCK = struct.Struct("hhqqi4x")
_IS_WRITTEN = "a process still writes to it"
_TOO_LARGE = "there is not enough memory to build it: four times its size is enough."
_DONE = ".done"  # behind that of a ring whose recording is in place


@dataclass(frozen=True, slots=True)
class Recovered:
    """A journal that became a recording; the journal is gone, unless it is `damaged`."""

    path: Path
    journal: Path
    damaged: (
        Path | None
    )  # where the journal is now: it holds records behind its damage, which nobody read
    num_steps: int
    num_requests: int
    num_events: int
    num_dropped: int
    num_exceptions: int
    first_exception: str | None
    damage: str | None  # what the journal lost at its end


@dataclass(frozen=True, slots=True)
class Kept:
    """A journal that stays as it is, and why."""

    journal: Path
    why: str
    live: bool  # a process still writes to it


Outcome = Recovered | Kept


def recover(directory: Path, run_id: str | None = None, *, force: bool = False) -> list[Outcome]:
    """Build, verify and put in place the recording of every journal in `directory` (of one run, or of all), and of those that
    `--attach ... start` began on the same processes, as runs and perhaps in folders of their own.

    A journal is deleted once its recording is in place. Raises RecordingError where `directory` is none.
    """
    if not directory.is_dir():
        raise RecordingError(f"{directory}: no such folder. Expected the DIR of `specdiff record`.")
    _clear_up(directory, run_id)
    written: set[Path] = set()
    found = notes(directory, run_id)
    own = journals(directory, run_id)
    outcomes = [_recover_one(path, force, written) for path in own]
    outcomes += _recover_attached(read_notes(found), {*map(_place, own)}, force, written)
    _file_away([note for note in found if _is_over(note)])
    return outcomes


def _recover_attached(
    found: Iterable[Note], seen: set[Path], force: bool, written: set[Path]
) -> Iterator[Outcome]:
    """What nobody has stopped, and what was kept of such a ring; none of the `seen` again."""
    for begun in (path for note in found for path in note.journals):
        try:
            left = journals(begun.parent) if begun.parent.is_dir() else []
        except (OSError, RecordingError) as error:  # not even whether it is still there
            why = f"{str(error).removesuffix('.')}. {once_mended(begun.parent)}"
            yield Kept(begun, why, live=False)
            continue
        for path in left:
            is_one = path.name.startswith(begun.name.removesuffix(JOURNAL) + ".")
            if is_one and _place(path) not in seen:
                seen.add(_place(path))
                yield _recover_one(path, force, written)


def _place(journal: Path) -> Path:
    """Notes say where it is in full."""
    return journal.parent.resolve() / journal.name


def _clear_up(directory: Path, run_id: str | None) -> None:
    """What a recover and a server left that were killed: a ring whose recording is in place, half a copy of one, and half a
    recording."""
    clear(directory)
    for path in _files(directory, run_id, JOURNAL + _DONE):
        shutil.rmtree(path, ignore_errors=True)
    for path in _files(directory, run_id, JOURNAL + PARTIAL):
        ring = path.name.removesuffix(JOURNAL + PARTIAL).rpartition(".")[0] + JOURNAL
        if not is_locked(path.with_name(ring)):
            shutil.rmtree(path, ignore_errors=True)


def _is_over(note: Path) -> bool:
    return os.access(note, os.R_OK) and not is_locked(note)


def _file_away(over: list[Path]) -> None:
    """What the notes of each run say goes into its manifest, and they go; where that cannot be written they stay."""
    for run_id, of_run in groupby(over, lambda note: note.name.rpartition("-")[0]):
        paths = list(of_run)
        every = [one for note in read_notes(paths) for one in note.schedulers]
        own = [one for one in every if one.journal is None or one.journal.startswith(f"{run_id}-")]
        with contextlib.suppress(OSError):
            manifest.write(paths[0].parent, run_id, own)
            for note in paths:
                note.unlink()


def recover_journal(journal: Path, *, force: bool = False) -> Outcome:
    """As `recover`, of one journal."""
    return _recover_one(journal, force, set())


def journals(directory: Path, run_id: str | None = None) -> list[Path]:
    return _files(directory, run_id, JOURNAL)


def notes(directory: Path, run_id: str | None = None) -> list[Path]:
    return _files(directory, run_id, NOTE)


def is_locked(path: Path) -> bool:
    """Whether a process still writes to a journal or note: it holds a record lock, which dies with it."""
    if not path.is_dir():
        return _is_held(path)
    # A ring holds its next segment before it lets go of this one: whoever is not listed yet may be the one.
    before, segments = None, _segments(path)
    while segments != before:
        if any(map(_is_held, segments)):
            return True
        before, segments = segments, _segments(path)
    return False


def _segments(ring: Path) -> list[Path]:
    """Nothing where they cannot be listed: whoever reads them says so."""
    try:
        return sorted(ring.iterdir())
    except OSError:
        return []


def _is_held(path: Path) -> bool:
    """Raises OSError where the file system has no locks: then nobody knows."""
    try:
        file = open(path, "rb")  # noqa: SIM115 (only what comes now says who writes)
    except OSError:
        return False
    with file:
        # Where it can be asked, no lock is taken to find out: a server may have to wait for it.
        if sys.platform == "linux":
            asked = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
            kind, *_ = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, asked))
            return bool(kind != fcntl.F_UNLCK)
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # EAGAIN, EACCES
            return True
        return False


def _files(directory: Path, run_id: str | None, suffix: str) -> list[Path]:
    try:
        found = sorted(directory.iterdir())
    except OSError as error:
        raise RecordingError(f"{directory}: cannot be listed ({error.strerror})") from error
    mine = (path for path in found if run_id is None or pid_of(path.name, run_id) is not None)
    return [path for path in mine if path.name.endswith(suffix)]


def _recover_one(journal: Path, force: bool, written: set[Path]) -> Outcome:
    """`written` holds what this call has put in place: not even `force` overwrites those."""
    try:
        if is_locked(journal):
            return Kept(journal, _IS_WRITTEN, live=True)
        try:
            with build_lock(journal):
                return _built(journal, force, written)
        except FileNotFoundError as gone:  # it is told by another's recording, if there is one
            return _built_by_another(journal, gone, written)
    except RecordingError as error:
        return Kept(journal, str(error).removeprefix(f"{journal}: "), live=False)
    except OSError as error:
        return Kept(
            journal, f"{error.strerror or error}. {once_mended(journal.parent)}", live=False
        )
    except MemoryError:  # the others may be smaller, and `record` has a command's status to tell
        return Kept(journal, f"{_TOO_LARGE} {once_mended(journal.parent)}", live=False)


def _built(journal: Path, force: bool, written: set[Path]) -> Outcome:
    recording = build(journal)
    if is_locked(journal):  # one that began just now: what has a header was locked before
        return Kept(journal, _IS_WRITTEN, live=True)
    path = journal.with_name(recording_name(recording.run, journal))
    if path in written:
        raise RecordingError(_same_name(path))
    if force or not is_saved(recording, path):  # a recover that was killed may have got so far
        save(recording, path, force=force)
    written.add(path)
    return _recovered(path, journal, _put_away(journal, recording), recording)


def _built_by_another(journal: Path, gone: OSError, written: set[Path]) -> Recovered:
    """A `stop`, `recover` or `record` that was quicker. Raises `gone` where nobody has built it."""
    found = built_of(journal)
    if found is None:
        raise gone
    path, recording = found
    written.add(path)
    damaged = journal.with_name(journal.name + DAMAGED)
    return _recovered(path, journal, damaged if damaged.exists() else None, recording)


def _recovered(path: Path, journal: Path, damaged: Path | None, recording: Recording) -> Recovered:
    stats = recording.stats
    return Recovered(
        path=path,
        journal=journal,
        damaged=damaged,
        num_steps=int((recording.events.kind == Kind.LAUNCH).sum()),
        num_requests=len(recording.rids),
        num_events=len(recording.events.kind),
        num_dropped=num_dropped(recording),
        num_exceptions=0 if stats is None else stats.exceptions,
        first_exception=None if stats is None else stats.first_exception,
        damage=recording.damage,
    )


def _put_away(journal: Path, recording: Recording) -> Path | None:
    """Its recording is in place. Only a journal that ends in a torn record, or in none, has given all it has."""
    if not recording.damage or not scan(journal).goes_on:
        if journal.is_dir():  # at once: half a ring would be another recording
            done = journal.with_name(journal.name + _DONE)
            shutil.rmtree(journal.replace(done), ignore_errors=True)  # the next one clears up
        else:
            journal.unlink(missing_ok=True)
        return None
    return journal.replace(journal.with_name(journal.name + DAMAGED))


def once_mended(directory: Path) -> str:
    return f"Once that is mended, run `{to_recover(directory)}`."


def _same_name(path: Path) -> str:
    return (
        f"its recording would be {path.name}, as that of another journal here. Move it to a folder "
        "of its own, and run `specdiff recover` on that."
    )
