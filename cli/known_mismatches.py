"""Apply the known mismatches of the settings to the result of a replay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..recorders.errors import UsageError
from ..replay.lift.releases import version_of
from ..replay.quantity import Quantity
from ..replay.spec import Lifted, Origin
from ..replay.verdict import ReplayResult, Verdict
from .project_settings import KnownMismatch


@dataclass(frozen=True, slots=True)
class JudgedRecording:
    """The result of one recording with the known mismatches that apply to it."""

    path: Path
    result: ReplayResult
    excused: Mapping[Quantity, KnownMismatch]  # differing quantities that a known mismatch covers
    complaints: tuple[str, ...]  # entries that are stale or have expired

    def verdict(self, *, named: bool) -> Verdict:
        """The verdict over the quantities that are not excused.

        `named`: the quantities were given with --quantity, so each of them must have been compared.
        """
        left = [one for one in self.result.quantities if one.quantity not in self.excused]
        if self.result.verdict is not Verdict.DIFFERS or any(one.num_differed for one in left):
            return self.result.verdict
        if named and not all(one.num_compared for one in left):
            return Verdict.NO_VERDICT
        return Verdict.SAME


def judge_recording(
    known: Iterable[KnownMismatch], path: Path, result: ReplayResult
) -> JudgedRecording:
    """Judge `result` with the entries that cover this recording and these paths.

    If the quantity of an entry does not differ, the entry is stale. If it was not compared, the entry is ignored.
    """
    excused: dict[Quantity, KnownMismatch] = {}
    complaints = []
    for entry in known:
        found = next((q for q in result.quantities if q.quantity is entry.quantity), None)
        if found is None or not found.num_compared or not _covers(entry, path, result):
            continue
        if version := _expired(entry, result):
            complaints.append(
                f"{path}: {entry} has expired: it applied until {entry.until}, and this is {version}"
            )
        elif found.num_differed:
            excused.setdefault(entry.quantity, entry)
        else:
            complaints.append(
                f"{path}: {entry} is stale: all {found.num_compared} values are the same. "
                "Remove the entry, or narrow its recordings"
            )
    return JudgedRecording(path, result, excused, tuple(complaints))


def _covers(entry: KnownMismatch, path: Path, result: ReplayResult) -> bool:
    old, new = (
        {None, str(a), str(b)} for a, b in zip(result.named, (result.old, result.new), strict=True)
    )
    return (
        any(name.match(glob) for name in _names(path) for glob in entry.recording)
        and entry.path in old | new
        and entry.old in old
        and entry.fixed in new
    )


def _names(path: Path) -> tuple[Path, ...]:
    """The path as given, and the file that it links to."""
    return path.absolute(), path.resolve()


def _expired(entry: KnownMismatch, result: ReplayResult) -> str | None:
    """Return the version that is too new for the entry: that of the recording, or a release that was lifted."""
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
    except UsageError:  # a custom build without a version number: never too new
        return False
