"""What a law says of one sglang whose whole scheduler plays a scenario: for tests that somebody keeps."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from ..recorders.errors import NoVerdictError, UsageError
from . import spec
from .bisect.law_court import LawCourt
from .bisect.playhouse import Playhouse
from .bisect.plays import Plays
from .bisect.search import judged
from .laws.ask import law_of
from .laws.law import Outcome


def playable(path: spec.Path) -> spec.Lifted:
    """Raises UsageError where it is no sglang with a source of its own."""
    if isinstance(path, spec.Lifted) and path.origin is not spec.Origin.INSTALLED:
        return path
    raise UsageError(
        f"{path}: expected sglang==VERSION, sglang@REV with its clone, or a folder with a source tree."
    )


def outcome(scenario: Path, sglang: str, law: str, repo: str | None = None) -> Outcome:
    """`scenario`: a recording, or a TOML file of the rig's. `sglang`: sglang==VERSION, sglang@REV of the clone `repo`, or a folder
    with a source tree. Takes some ten seconds, and what `make test` wants of this machine.

    Raises NoVerdictError where it cannot be played there, UsageError where there is no such sglang or law.
    """
    path = playable(spec.parse(sglang, repo))
    with (
        TemporaryDirectory(prefix="specdiff-") as folder,
        closing(Playhouse()) as house,
    ):
        plays = Plays(scenario, Path(folder), house)
        found = judged(LawCourt(law_of(law), plays), path)
    if found.outcome is None:
        raise NoVerdictError(f"{scenario.name} is not played by {sglang}: {found.why}")
    return found.outcome
