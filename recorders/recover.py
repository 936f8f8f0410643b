"""Build recordings from the journals that processes left, however these processes ended."""

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

from . import run_manifest
from .build import build
from .build_lock import build_lock, built_of
from .errors import RecordingError, is_a_journal, to_recover
from .file_names import JOURNAL, NOTE, is_journal, pid_of, recording_name
from .hdf5 import is_saved, save
from .journal import PARTIAL, scan
from .notes import Note, read_notes
from .recording import Recording
from .runs import num_dropped
from .schema import Kind
from .scratch import clear

DAMAGED = ".damaged"  # suffix of a damaged journal that was kept
# struct flock of 64-bit Linux: type, whence, start, length, process
_FLOCK = struct.Struct("hhqqi4x")
_IS_WRITTEN = "a process still writes to it"
_TOO_LARGE = "not enough memory to build it; four times the size of the journal is enough."
_DONE = ".done"  # suffix of a ring whose recording is in place


@dataclass(frozen=True, slots=True)
class Recovered:
    """A journal that became a recording. The journal was deleted, unless `damaged` is set."""

    path: Path
    journal: Path
    # The journal's new path, if records follow its damage. Those records were not read.
    damaged: Path | None
    num_launches: int
    num_requests: int
    num_events: int
    num_dropped: int
    num_exceptions: int
    first_exception: str | None
    damage: str | None  # what was lost at the end of the journal


@dataclass(frozen=True, slots=True)
class NotRecovered:
    """A journal from which no recording was built, and why. It stays as it is."""

    journal: Path
    why: str
    live: bool  # a process still writes to it


RecoveryOutcome = Recovered | NotRecovered


def recover(
    directory: Path, run_id: str | None = None, *, force: bool = False
) -> list[RecoveryOutcome]:
    """Build, verify and put in place the recording of every journal in `directory`.

    `run_id` restricts this to one run. Journals that `--attach ... start` began on the same
    processes are included, even though each is a run of its own and may be in another folder.

    A journal is deleted once its recording is in place. Raises RecordingError if `directory` is not
    a folder.
    """
    if is_journal(directory):
        raise RecordingError(is_a_journal(directory))
    if not directory.is_dir():
        why = "not a folder" if directory.exists() else "no such folder"
        raise RecordingError(f"{directory}: {why}. Expected the DIR of `specdiff record`.")
    _clear_up(directory, run_id)
    written: set[Path] = set()
    found = notes(directory, run_id)
    own = journals(directory, run_id)
    outcomes = [_recover_one(path, force, written) for path in own]
    outcomes += _recover_attached(read_notes(found), {*map(_absolute, own)}, force, written)
    _file_away([note for note in found if _is_over(note)])
    return outcomes


def _recover_attached(
    found: Iterable[Note], seen: set[Path], force: bool, written: set[Path]
) -> Iterator[RecoveryOutcome]:
    """Recover the journals that `--attach ... start` began and no `stop` has built.

    This includes kept copies of such rings. Journals in `seen` are skipped.
    """
    for begun in (path for note in found for path in note.journals):
        try:
            left = journals(begun.parent) if begun.parent.is_dir() else []
        except (OSError, RecordingError) as error:  # not even its existence can be checked
            why = f"{str(error).removesuffix('.')}. {fix_then_recover(begun.parent)}"
            yield NotRecovered(begun, why, live=False)
            continue
        for path in left:
            is_one = path.name.startswith(begun.name.removesuffix(JOURNAL) + ".")
            if is_one and _absolute(path) not in seen:
                seen.add(_absolute(path))
                yield _recover_one(path, force, written)


def _absolute(journal: Path) -> Path:
    """Return a journal's absolute path, to compare with the paths in notes."""
    return journal.parent.resolve() / journal.name


def _clear_up(directory: Path, run_id: str | None) -> None:
    """Delete what a killed `recover` or server left.

    This is a ring whose recording is in place, an incomplete copy of a ring, or an incomplete
    recording.
    """
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
    """Move the contents of each run's notes into its manifest and delete the notes.

    If a manifest cannot be written, its notes stay.
    """
    for run_id, of_run in groupby(over, lambda note: note.name.rpartition("-")[0]):
        paths = list(of_run)
        every = [one for note in read_notes(paths) for one in note.schedulers]
        own = [one for one in every if one.journal is None or one.journal.startswith(f"{run_id}-")]
        with contextlib.suppress(OSError):
            run_manifest.write(paths[0].parent, run_id, own)
            for note in paths:
                note.unlink()


def recover_journal(journal: Path, *, force: bool = False) -> RecoveryOutcome:
    """Do what `recover` does, for one journal."""
    return _recover_one(journal, force, set())


def journals(directory: Path, run_id: str | None = None) -> list[Path]:
    return _files(directory, run_id, JOURNAL)


def notes(directory: Path, run_id: str | None = None) -> list[Path]:
    return _files(directory, run_id, NOTE)


def is_locked(path: Path) -> bool:
    """Whether a process still writes to a journal or note.

    A writer holds a record lock, which ends with the process.
    """
    if not path.is_dir():
        return _is_held(path)
    # A ring's writer locks the next segment before it unlocks the current one. The locked segment
    # may be missing from the first listing, so repeat until the listing no longer changes.
    before, segments = None, _segments(path)
    while segments != before:
        if any(map(_is_held, segments)):
            return True
        before, segments = segments, _segments(path)
    return False


def _segments(ring: Path) -> list[Path]:
    """List a ring's segments. Empty if that fails: the code that reads them reports the error."""
    try:
        return sorted(ring.iterdir())
    except OSError:
        return []


def _is_held(path: Path) -> bool:
    """Whether a process holds a record lock on a file.

    Raises OSError if the file system has no locks: then this cannot be known.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115 (closed by the `with` below)
    except OSError:
        return False
    with file:
        # On Linux, query the lock without taking one, so that a server never has to wait for us.
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


def _recover_one(journal: Path, force: bool, written: set[Path]) -> RecoveryOutcome:
    """Recover one journal.

    `written` holds the recordings that this call has put in place; not even `force` overwrites them.
    """
    try:
        if is_locked(journal):
            return NotRecovered(journal, _IS_WRITTEN, live=True)
        try:
            with build_lock(journal):
                return _built(journal, force, written)
        except FileNotFoundError as gone:  # another process may have built it
            return _built_by_another(journal, gone, written)
    except RecordingError as error:
        return NotRecovered(journal, str(error).removeprefix(f"{journal}: "), live=False)
    except OSError as error:
        return NotRecovered(
            journal, f"{error.strerror or error}. {fix_then_recover(journal.parent)}", live=False
        )
    except MemoryError:  # go on: other journals may be smaller, and `record` must return a status
        return NotRecovered(journal, f"{_TOO_LARGE} {fix_then_recover(journal.parent)}", live=False)


def _built(journal: Path, force: bool, written: set[Path]) -> RecoveryOutcome:
    recording = build(journal)
    if is_locked(journal):  # a writer began just now: it locks the file before it writes the header
        return NotRecovered(journal, _IS_WRITTEN, live=True)
    path = journal.with_name(recording_name(recording.run, journal))
    if path in written:
        raise RecordingError(_same_name(path))
    if force or not is_saved(recording, path):  # a killed `recover` may have saved it already
        save(recording, path, force=force)
    written.add(path)
    return _recovered(path, journal, _put_away(journal, recording), recording)


def _built_by_another(journal: Path, gone: OSError, written: set[Path]) -> Recovered:
    """Return the result of another `stop`, `recover` or `record`, which built this journal first.

    Raises `gone` if there is no such recording.
    """
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
        num_launches=int((recording.events.kind == Kind.LAUNCH).sum()),
        num_requests=len(recording.rids),
        num_events=len(recording.events.kind),
        num_dropped=num_dropped(recording),
        num_exceptions=0 if stats is None else stats.exceptions,
        first_exception=None if stats is None else stats.first_exception,
        damage=recording.damage,
    )


def _put_away(journal: Path, recording: Recording) -> Path | None:
    """Delete a journal whose recording is in place, or keep it if it holds more than was read.

    It holds more if records follow its damage; then it is renamed, and its new path is returned.
    """
    if not recording.damage or not scan(journal).goes_on:
        if journal.is_dir():
            # Rename it first, in one step: a partly deleted ring would become another recording.
            done = journal.with_name(journal.name + _DONE)
            # If this fails, the next `recover` deletes it.
            shutil.rmtree(journal.replace(done), ignore_errors=True)
        else:
            journal.unlink(missing_ok=True)
        return None
    return journal.replace(journal.with_name(journal.name + DAMAGED))


def fix_then_recover(directory: Path) -> str:
    """The last sentence of an error: what to run after the user has fixed the cause."""
    return f"Fix that, then run `{to_recover(directory)}`."


def _same_name(path: Path) -> str:
    return (
        f"its recording would be named {path.name}, as would that of another journal in this folder. "
        "Move the journal to its own folder, then run `specdiff recover` on that folder."
    )
