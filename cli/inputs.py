"""Recordings named on a command line: files, folders of them, or the bundled ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..recorders.errors import NoVerdictError, RecordingError, UsageError, to_recover
from .main import BROKEN, NO_VERDICT, complain

if TYPE_CHECKING:
    from ..recorders.manifest import Manifest
    from ..recorders.recording import Recording
    from ..replay.lift.crew import Crew


def bundled() -> Path:
    return Path(__file__).resolve().parent.parent / "fixtures" / "recordings"


def each(
    names: Sequence[str], work: Callable[[Path], None], now: Callable[[str], None] = lambda _: None
) -> set[int]:
    """Do `work` for every recording behind `names`, folders expanded; none named means the bundled ones. `now` hears of each.

    What is wrong with one is said, and the others are done all the same. Returns the exit codes of what was wrong.
    """
    codes: set[int] = set()

    def report(message: str, code: int) -> None:
        now("")
        _report(message, codes, code)

    for name in [Path(name) for name in names] or [bundled()]:
        try:
            paths = _folder(name) if name.is_dir() else [name]
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


def manifests(folder: Path, codes: set[int]) -> list[Manifest]:
    """What the manifests in a folder tell; what is wrong with one is said, and its exit code added."""
    from ..recorders import manifest

    found = []
    for path in manifest.manifests(folder):
        try:
            found.append(manifest.read(path))
        except (RecordingError, OSError) as error:
            _report(str(error), codes, BROKEN)
    return found


def one(path: Path, crew: Crew | None = None) -> tuple[Recording, str]:
    """A single recording and the sha256 of its file. Raises UsageError for a folder.

    `crew`: who replays it meanwhile, and is told that it has been read.
    """
    from ..recorders import hdf5

    if path.is_dir():
        raise UsageError(f"{path} is a folder; name one recording of it (*.h5).")
    recording = hdf5.load(path)
    if crew is not None:
        crew.confirm()
    return recording, hashlib.sha256(path.read_bytes()).hexdigest()


def check_is_recording(path: Path) -> None:
    """Raises UsageError: a recording that is to be written is known by its name, as `check DIR` and others find it."""
    if path.suffix != ".h5":
        raise UsageError(f"-o {path}: a recording is known by its name, expected *.h5.")


def check_output(path: Path, *, force: bool | None, source: Path | None = None) -> None:
    """Raises RecordingError where a file cannot be written to `path`, before any work is done for it.

    `source`: what it is made from, which nothing ever overwrites. `force`: None where the command has no such option.
    """
    try:
        if not path.parent.is_dir():
            raise RecordingError(
                f"{path}: there is no folder {path.parent}. Make it, or name another."
            )
        if source is not None and path.exists() and source.exists() and path.samefile(source):
            raise RecordingError(f"{path} is the recording itself: name another file.")
        if path.exists() and not force:
            remedy = "Name another file." if force is None else "Use --force, or another name."
            raise RecordingError(f"{path} exists. {remedy}")
    except OSError as error:
        raise RecordingError(f"{path}: cannot be written ({error}).") from error


def save(recording: Recording, path: Path, *, force: bool) -> None:
    """Of one that was made of another. Raises RecordingError where it cannot be written."""
    from ..recorders import hdf5

    hdf5.save(recording, path, force=force, remedy="Mend that, or name another file.")


def write_text(path: Path, text: str) -> None:
    """Raises RecordingError where it cannot be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecordingError(f"{path}: cannot be written ({error}).") from error


def _report(message: str, codes: set[int], code: int) -> None:
    codes.add(code)
    complain(message)


def _folder(path: Path) -> list[Path]:
    inside = sorted(path.iterdir())  # a glob finds nothing where nobody may look
    if found := [one for one in inside if one.name.endswith(".h5")]:
        return found
    journals = sum(one.name.endswith(".journal") for one in inside)
    remedy = (
        f"It holds {journals} journal{'' if journals == 1 else 's'}: run `{to_recover(path)}`."
        if journals
        else "Name a folder that `specdiff record -o` wrote into, or a recording."
    )
    raise RecordingError(f"{path}: a folder without recordings (*.h5). {remedy}")
