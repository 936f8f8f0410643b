"""Apply a law to one sglang version whose whole scheduler plays a scenario.

Exported tests use this.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from ..recorders.errors import NoVerdictError, UsageError
from . import spec
from .bisect.law_judge import LawJudge
from .bisect.play_pool import PlayPool
from .bisect.plays import Plays
from .bisect.search import judge_or_skip
from .laws.check_one import law_of
from .laws.law import LawOutcome


def playable(path: spec.Path) -> spec.Lifted:
    """Return the path if its sglang can be played.

    Raises UsageError if it has no sglang source of its own.
    """
    if isinstance(path, spec.Lifted) and path.origin is not spec.Origin.INSTALLED:
        return path
    raise UsageError(
        f"{path} cannot be played: expected sglang==VERSION, sglang@REV with its clone, or a folder with a source tree."
    )


def outcome(scenario: Path, sglang: str, law: str, repo: str | None = None) -> LawOutcome:
    """Play a scenario on one sglang and return what the law says about it.

    `scenario` is a recording or a TOML file of the rig. `sglang` is sglang==VERSION, sglang@REV of
    the clone `repo`, or a folder with a source tree. This takes about ten seconds and has the same
    requirements as `make test`.

    Raises NoVerdictError if the scenario cannot be played there, UsageError if there is no such
    sglang or law.
    """
    path = playable(spec.parse(sglang, repo))
    with (
        TemporaryDirectory(prefix="specdiff-") as folder,
        closing(PlayPool()) as pool,
    ):
        plays = Plays(scenario, Path(folder), pool)
        found = judge_or_skip(LawJudge(law_of(law), plays), path)
    if found.outcome is None:
        raise NoVerdictError(f"{scenario.name} cannot be played on {sglang}: {found.why}")
    return found.outcome
