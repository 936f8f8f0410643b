"""Read what the rig is to play: a recording, or a scenario that a user wrote."""

from __future__ import annotations

from pathlib import Path

from ..fixtures.rig.errors import RigError
from ..fixtures.rig.reenact.reenact import Reenactment, reenactment
from ..fixtures.rig.requirements import require_packages
from ..fixtures.rig.script import Scenario
from ..fixtures.rig.written import read_scenario
from ..recorders import hdf5
from ..recorders.errors import NoVerdictError, RecordingError, UsageError
from ..recorders.recording import Recording
from ..replay.lift.releases import RELEASES
from ..replay.played import playable
from ..replay.spec import Lifted
from . import options


def reenacted(recording: Recording, name: str) -> Reenactment:
    """Raises NoVerdictError if the recording cannot be played again."""
    try:
        return reenactment(recording, name)
    except RigError as error:
        raise NoVerdictError(f"{error}.") from None


def read(path: Path) -> tuple[Scenario, str | None]:
    """Read a recording or a scenario. Returns it with the sglang version that was recorded, or that the scenario names.

    Raises UsageError if the file name has another ending, RecordingError if the file cannot be read, NoVerdictError if it
    is a recording that cannot be played again.
    """
    if path.suffix not in (".h5", ".toml"):
        raise UsageError(f"{path}: expected a recording (*.h5) or a scenario (*.toml).")
    if path.suffix == ".h5":
        recording = hdf5.load(path)
        return reenacted(recording, path.name).scenario, recording.run.sglang_version
    try:
        scenario = read_scenario(path)
    except RigError as error:
        raise RecordingError(f"{str(error).removesuffix('.')}.") from None
    return scenario, scenario.sglang or None


def player(source: Path, release: str | None, path: str | None, repo: str | None) -> Lifted:
    """Return the sglang that plays the file: `path` if given, else `release`, which `read` found in the file.

    Raises UsageError if there is neither, or if `path` is not an sglang with source of its own.
    """
    if path is None and release not in RELEASES:
        says = "does not name the sglang that plays it"
        if release is not None:
            says = f"is from sglang {release}, but the rig plays only releases from {RELEASES[0]} to {RELEASES[-1]}"
        also = ', or with sglang = "VERSION" in the file' if source.suffix == ".toml" else ""
        raise UsageError(
            f"{source} {says}. Name one with --path sglang==VERSION or --path FOLDER (a source tree){also}."
        )
    (sglang,) = options.paths_of([path or f"sglang=={release}"], repo)
    return playable(sglang)


def check_packages() -> None:
    """Raises NoVerdictError if packages are missing that sglang needs to be imported."""
    try:
        require_packages()
    except RigError as error:
        raise NoVerdictError(str(error)) from None
