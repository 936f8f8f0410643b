"""Decide which fixes the server of a recording should have."""

from __future__ import annotations

from ..recorders.recording import Recording
from .lift.releases import RELEASES, version_of
from .paths.fixes import ALL
from .spec import Expected, FixSet, Path

_CLAIM = 22651
_CLAIMS_UNTIL = version_of("0.5.15")  # #28754 took #22651 back
_NEVER_CLAIM = ("DFLASH",)  # in any release


def concrete(path: Path, recording: Recording) -> Path:
    """Replace `expected` by the set of fixes that it stands for in this recording."""
    return _expected(recording) if isinstance(path, Expected) else path


def named(path: Path, recording: Recording) -> str:
    """Return the path as a report names it: `expected` with the set that it stands for here."""
    return f"{path} ({concrete(path, recording)})" if isinstance(path, Expected) else str(path)


def _expected(recording: Recording) -> FixSet:
    return FixSet(ALL) if _should_claim(recording) else FixSet(ALL - {_CLAIM})


def _should_claim(recording: Recording) -> bool:
    """Whether the server's prepares should claim slots.

    Books with and without claims are both right, if a release has them on purpose. A server of an
    unknown release is therefore taken at its word.
    """
    run = recording.run
    if run.spec_algorithm in _NEVER_CLAIM:
        return False
    for release in (run.books, run.sglang_version):
        if release in RELEASES:
            return version_of(release) < _CLAIMS_UNTIL
    rows = recording.prepare_rows
    return bool((rows.committed_after > rows.committed_before).any())
