"""Find every version at which the books for one recording changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path as Folder

from ..recorders.errors import NoVerdictError, UsageError
from .bisect.commits import first_parents, is_ancestor
from .columns.shared import Columns
from .lift.git import NoSourceError, check_sglang, commit_of
from .lift.ledger import lifted
from .lift.open import surface_of
from .lift.releases import between, version_of
from .lift.worker_pool import MAX_PREFETCHED
from .quantity import Quantity
from .spec import Lifted, Origin
from .verdict import ReplayResult, compare

_SOURCES = ("python/sglang/srt", "sglang/srt", "srt")  # only commits that touch these are judged


@dataclass(frozen=True, slots=True)
class VersionResult:
    """One version.

    `result` compares it with the previous version that could run, and is None for the first
    version. If `same_code` is set, its code is the same as that version's: the books are then
    equal, and were not compared value by value. `has` lists the quantities for which its books have
    values. `why` says why it cannot run this recording.
    """

    path: Lifted
    digest: str | None
    result: ReplayResult | None
    why: str | None = None
    same_code: bool = False
    has: tuple[Quantity, ...] = ()

    @property
    def compared(self) -> tuple[Quantity, ...]:
        """The quantities for which both versions have some value."""
        if self.same_code:
            return self.has
        found = self.result.quantities if self.result else ()
        return tuple(one.quantity for one in found if one.num_compared)

    @property
    def num_compared(self) -> int:
        return sum(one.num_compared for one in self.result.quantities) if self.result else 0

    @property
    def summary(self) -> str:
        """The finding in a few words."""
        if self.why is not None:
            return "skipped"
        if self.same_code:
            return "the same code"
        if self.result is None:
            return "the first"
        if self.changed:
            return "changed"
        return "other code, the same books" if self.num_compared else "nothing could be compared"

    @property
    def changed(self) -> bool:
        return self.result is not None and any(q.num_differed for q in self.result.quantities)


def versions(oldest: Lifted, newest: Lifted) -> list[Lifted]:
    """Return both ends and every version between them.

    These are all releases, or all commits along first parents that touch the runtime. Raises
    UsageError if the ends are not both releases or both commits, if the first is not the older one,
    if no line of commits leads from one to the other, or if one of them contains no sglang.
    """
    if oldest.origin is newest.origin is Origin.RELEASE:
        if version_of(oldest.where) >= version_of(newest.where):
            raise UsageError(f"{newest} is not newer than {oldest}: --from takes the older one.")
        names = between(oldest.where, newest.where)
        return [Lifted(f"sglang=={name}", Origin.RELEASE, name) for name in names]
    if oldest.origin is newest.origin is Origin.REVISION:
        repo = Folder(oldest.repo or ".")
        first, last = (commit_of(repo, end.where) for end in (oldest, newest))
        if first == last:
            raise UsageError(
                f"{oldest} and {newest} are one commit: there is nothing between them."
            )
        found = first_parents(repo, first, last, _SOURCES)
        for end, commit in ((oldest, first), (newest, last)):
            check_sglang(repo, str(end), commit)
        return [
            Lifted(f"sglang@{commit[:12]}", Origin.REVISION, commit, oldest.repo)
            for commit in found
        ]
    raise UsageError(
        f"history needs two releases (sglang==A and sglang==B) or two commits (sglang@A and sglang@B with --repo), "
        f"not {oldest} and {newest}."
    )


def in_order(one: Lifted, other: Lifted) -> tuple[Lifted, Lifted]:
    """Return two releases or two commits with the older one first, as `versions` requires."""
    if one.origin is Origin.RELEASE:
        newer_first = version_of(other.where) < version_of(one.where)
    else:
        repo = Folder(one.repo or ".")
        newer_first = is_ancestor(repo, *(commit_of(repo, end.where) for end in (other, one)))
    return (other, one) if newer_first else (one, other)


def history(
    columns: Columns,
    paths: Sequence[Lifted],
    quantities: Sequence[Quantity],
    on_result: Callable[[VersionResult], None],
) -> tuple[VersionResult, ...]:
    """Return one result per path. Calls `on_result` with each of them as soon as it is complete."""
    found = []
    for version in _version_results(columns, paths, quantities):
        on_result(version)
        found.append(version)
    return tuple(found)


def _version_results(
    columns: Columns, paths: Sequence[Lifted], quantities: Sequence[Quantity]
) -> Iterator[VersionResult]:
    """Compare each path with the last one before it that could run."""
    before: Lifted | None = None
    code: str | None = None
    for place, path in enumerate(paths):
        if columns.workers is not None:  # begin the first ones at once, then one more each time
            new = (
                slice(place + MAX_PREFETCHED - 1, place + MAX_PREFETCHED)
                if place
                else slice(MAX_PREFETCHED)
            )
            columns.workers.begin_all(paths[new])
        try:
            digest = surface_of(path).digest
            ledger = lifted(columns, path, quantities)  # raises if it cannot run
            if before is None or digest == code:
                has = tuple(
                    one.quantity for one in ledger.only(quantities).series if one.captured.any()
                )
                yield VersionResult(path, digest, None, same_code=before is not None, has=has)
            else:
                yield VersionResult(path, digest, compare(columns, before, path, quantities))
        except (NoVerdictError, NoSourceError) as error:
            yield VersionResult(path, None, None, str(error))
            continue
        before, code = path, digest
