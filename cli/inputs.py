"""Read the recordings named on a command line (files, folders or the bundled ones), and check and write output files."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..recorders.errors import (
    NoVerdictError,
    RecordingError,
    UsageError,
    is_a_journal,
    to_recover,
)
from ..recorders.file_names import JOURNAL, is_journal
from ..recorders.scratch import scratch
from .main import BROKEN, NO_VERDICT, complain

if TYPE_CHECKING:
    from ..recorders.recording import Recording
    from ..recorders.run_manifest import RunManifest
    from ..replay.lift.worker_pool import WorkerPool


def bundled() -> Path:
    return Path(__file__).resolve().parent.parent / "fixtures" / "recordings"


def each(
    names: Sequence[str], work: Callable[[Path], None], now: Callable[[str], None] = lambda _: None
) -> set[int]:
    """Call `work` with every recording in `names`. Folders are expanded; no names means the bundled recordings.

    An error in one recording is printed and does not stop the others. `now` is called with the text that says which
    recording is next. Returns the exit codes of the errors.
    """
    codes: set[int] = set()

    def report(message: str, code: int) -> None:
        now("")
        _report(message, codes, code)

    for name in [Path(name) for name in names] or [bundled()]:
        try:
            paths = _folder(name, now) if name.is_dir() else [name]
        except RecordingError as error:
            report(str(error), BROKEN)
            continue
        except OSError as error:
            report(f"{name}: cannot be read ({error}).", BROKEN)
            continue
        for number, path in enumerate(paths, 1):
            now(f"{path}" + (f"  ({number} of {len(paths)})" if len(paths) > 1 else ""))
            try:
                work(path)
            except RecordingError as error:
                report(str(error), BROKEN)
            except NoVerdictError as error:
                report(f"{path}: {error}", NO_VERDICT)
    return codes


def manifests(folder: Path, codes: set[int]) -> list[RunManifest]:
    """Read the manifests in a folder. An error in one is printed, and its exit code is added to `codes`."""
    from ..recorders import run_manifest

    found = []
    for path in run_manifest.manifests(folder):
        try:
            found.append(run_manifest.read(path))
        except (RecordingError, OSError) as error:
            _report(str(error), codes, BROKEN)
    return found


def one(path: Path, workers: WorkerPool | None = None) -> tuple[Recording, str]:
    """Load one recording. Returns it with the sha256 of its file. Raises UsageError for a folder.

    `workers`: processes that already replay the same file; they are notified once it has been read here.
    """
    from ..recorders import hdf5

    if path.is_dir():
        raise UsageError(f"{path} is a folder. Name one recording in it (*.h5).")
    recording = hdf5.load(path)
    if workers is not None:
        workers.confirm()
    return recording, hashlib.sha256(path.read_bytes()).hexdigest()


def check_is_recording(path: Path) -> None:
    """Raises UsageError unless the name of an output recording ends in .h5, by which `check DIR` and others find it."""
    if path.suffix != ".h5":
        raise UsageError(f"-o {path}: the name of a recording must end in .h5.")


def check_output(path: Path, *, force: bool | None, source: Path | None = None) -> None:
    """Check that `path` can be written before any work is done. Raises RecordingError if it cannot.

    `source`: the input file, which is never overwritten. `force`: None if the command has no --force option.
    """
    try:
        if not path.parent.is_dir():
            raise RecordingError(
                f"{path}: the folder {path.parent} does not exist. Create it, or choose another one."
            )
        if source is not None and path.exists() and source.exists() and path.samefile(source):
            raise RecordingError(f"{path} is the input file itself. Choose another name.")
        if path.exists() and not force:
            remedy = (
                "Choose another name." if force is None else "Use --force, or choose another name."
            )
            raise RecordingError(f"{path} already exists. {remedy}")
    except OSError as error:
        raise RecordingError(f"{path}: cannot be written ({error}).") from error


def save(recording: Recording, path: Path, *, force: bool) -> None:
    """Write a recording that was made from another one. Raises RecordingError if it cannot be written."""
    from ..recorders import hdf5

    hdf5.save(recording, path, force=force, remedy="Fix that, or choose another name.")


def write_text(path: Path, text: str) -> None:
    """Write the complete file, or nothing if that fails: then a file that was there stays.

    Raises RecordingError if it cannot be written.
    """
    content = text.encode()
    try:
        if path.exists() and not path.is_file():  # a pipe or /dev/stdout
            path.write_bytes(content)
            return
        target = path.resolve()  # a rename would replace a link, not the file that it names
        with scratch(target) as file:
            if target.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
            file.write(content)
            file.flush()
            Path(file.name).replace(target)
    except OSError as error:
        raise RecordingError(f"{path}: cannot be written ({error}).") from error


def _report(message: str, codes: set[int], code: int) -> None:
    codes.add(code)
    complain(message)


def journals_left_out(folder: Path, count: int) -> str:
    """Say that there are journals beside the recordings of a folder, so that nobody takes the rest for all."""
    return (
        f"{folder}: left out here: {_counted(count)}, of which no recording was built yet. When the server has ended, "
        f"run `{to_recover(folder)}`."
    )


def _counted(journals: int) -> str:
    return f"{journals} journal{'' if journals == 1 else 's'}"


def _folder(path: Path, now: Callable[[str], None]) -> list[Path]:
    """List the recordings in a folder. Journals beside them are named."""
    inside = sorted(path.iterdir())  # not glob, which finds nothing in a folder that cannot be read
    journals = sum(one.name.endswith(JOURNAL) for one in inside)
    if found := [one for one in inside if one.name.endswith(".h5")]:
        if journals:
            now("")
            complain(journals_left_out(path, journals))
        return found
    if is_journal(path):
        raise RecordingError(is_a_journal(path))
    remedy = (
        f"It contains {_counted(journals)}: run `{to_recover(path)}`."
        if journals
        else "Name a recording, or a folder that `specdiff record -o` wrote to."
    )
    raise RecordingError(f"{path}: this folder contains no recordings (*.h5). {remedy}")
