"""Known mismatches held against what a replay found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..recorders.errors import UsageError
from ..replay.lift.releases import version_of
from ..replay.quantity import Quantity
from ..replay.spec import Lifted, Origin
from ..replay.verdict import Result, Verdict
from .settings import Known


@dataclass(frozen=True, slots=True)
class Judged:
    """One recording's result in the light of what is known of it."""

    path: Path
    result: Result
    excused: Mapping[Quantity, Known]  # the differing quantities that an entry covers
    complaints: tuple[str, ...]  # entries that are stale here, or have expired

    def verdict(self, *, named: bool) -> Verdict:
        """Of what is left to judge. `named`: the quantities were asked for by name, and each must have been compared."""
        left = [one for one in self.result.quantities if one.quantity not in self.excused]
        if self.result.verdict is not Verdict.DIFFERS or any(one.num_differed for one in left):
            return self.result.verdict
        if named and not all(one.num_compared for one in left):
            return Verdict.NO_VERDICT
        return Verdict.SAME


def judge(known: Iterable[Known], path: Path, result: Result) -> Judged:
    """Each entry that covers this recording and these paths must show here: its quantity differs, or the entry is stale.

    Where the quantity was not compared, nothing is said of the entry.
    """
    excused: dict[Quantity, Known] = {}
    complaints = []
    for entry in known:
        found = next((q for q in result.quantities if q.quantity is entry.quantity), None)
        if found is None or not found.num_compared or not _covers(entry, path, result):
            continue
        if version := _expired(entry, result):
            complaints.append(
                f"{path}: {entry} has expired: until {entry.until}, and this is {version}"
            )
        elif found.num_differed:
            excused.setdefault(entry.quantity, entry)
        else:
            complaints.append(
                f"{path}: {entry} is stale: all {found.num_compared} values are the same. "
                "Remove it, or narrow its recordings"
            )
    return Judged(path, result, excused, tuple(complaints))


def _covers(entry: Known, path: Path, result: Result) -> bool:
    old, new = str(result.old), str(result.new)
    return (
        any(name.match(glob) for name in _names(path) for glob in entry.recording)
        and entry.path in (None, old, new)
        and entry.old in (None, old)
        and entry.fixed in (None, new)
    )


def _names(path: Path) -> tuple[Path, ...]:
    """As it was named, and what that is a link to."""
    return path.absolute(), path.resolve()


def _expired(entry: Known, result: Result) -> str | None:
    """The version that is too new for the entry: of the recording, or of a release that was lifted."""
    lifted = (
        path.where
        for path in (result.old, result.new)
        if isinstance(path, Lifted) and path.origin is Origin.RELEASE
    )
    if entry.until is None:
        return None
    versions = (result.run.sglang_version, *lifted)
    return next((version for version in versions if _since(entry.until, version)), None)


def _since(until: str, version: str) -> bool:
    try:
        return version_of(version) >= version_of(until)
    except UsageError:  # a build that names itself as it likes: no version, so no later one
        return False
