"""What the rig is to play: a recording again, or a scenario that somebody wrote."""

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
    """Raises NoVerdictError where it cannot be played again."""
    try:
        return reenactment(recording, name)
    except RigError as error:
        raise NoVerdictError(f"{error}.") from None


def read(path: Path) -> tuple[Scenario, str | None]:
    """And which sglang was recorded, or which release it names. Raises UsageError where its name is neither's, RecordingError where
    the file cannot be read, NoVerdictError where it is a recording that cannot be played again."""
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
    """Who plays what is in that file: `path`, where somebody names one, else `release`, which `read` found in it.

    Raises UsageError where there is neither, or it is no sglang with a source of its own."""
    if path is None and release not in RELEASES:
        says = "does not say which sglang plays it"
        if release is not None:
            says = f"is of sglang {release}, which is none of the releases that the rig plays ({RELEASES[0]} to {RELEASES[-1]})"
        also = ', or in the file: sglang = "VERSION"' if source.suffix == ".toml" else ""
        raise UsageError(
            f"{source} {says}: name one, --path sglang==VERSION or the folder of a source tree{also}."
        )
    (whose,) = options.paths_of([path or f"sglang=={release}"], repo)
    return playable(whose)


def check_packages() -> None:
    """Raises NoVerdictError where no sglang can be imported."""
    try:
        require_packages()
    except RigError as error:
        raise NoVerdictError(str(error)) from None
