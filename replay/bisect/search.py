"""The search: between two releases every one is judged, between two commits as few as possible."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as Folder
from typing import Protocol

from ...recorders.errors import NoVerdictError, UsageError
from ..lift.git import NoSourceError, commit_of
from ..lift.releases import between, version_of
from ..spec import Lifted, Origin
from .commits import Commits, is_ancestor, merge_base, parent
from .judge import Finding, Judged
from .line import Change, changes


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the search is. Candidates are numbered oldest first; `span`: the first and the last that may be the answer.

    `ends`: good and bad, as near as they are known by now: with them a search that was stopped goes on.
    """

    tested: Judged | None
    of: int
    span: tuple[int, int]
    ends: tuple[Lifted, Lifted]
    forward: bool = True  # the good end is the older one
    skipped: tuple[str, ...] = ()

    @property
    def left(self) -> int:
        return self.span[1] - self.span[0] + 1


Report = Callable[[Progress], None]


class Court(Protocol):
    """Who says what a candidate is: a `Judge` by its books, a `LawCourt` by what comes of playing a scenario."""

    def __call__(self, path: Lifted) -> Judged: ...

    def ahead(self, paths: Sequence[Lifted]) -> None:
        """These will be asked for, in this order."""

    def why_not_good(self, end: Lifted) -> str:
        """Of a good end that was judged and is not: in words, and what to do."""


@dataclass(frozen=True, slots=True)
class Search:
    """`change`: the one nearest to the good end; None where the ends say the same. `others`: all further ones.

    `one_change`: true where the answer assumes that there is but one.
    """

    tested: tuple[Judged, ...]
    change: Change | None
    others: tuple[Change, ...]
    one_change: bool


def search(
    judge: Court, good: Lifted, bad: Lifted, report: Report, skip: Sequence[str] = ()
) -> Search:
    """`skip`: commits or releases that are not to be judged, named as the ends are or bare.

    Raises NoVerdictError where an end is not what it is said to be, UsageError where nothing lies between them or an
    end is to be skipped.
    """
    left_out = check(good, bad, skip)
    first, last = judge(good), judge(bad)
    for one, name in ((first, "good"), (last, "bad")):
        if one.finding is Finding.SKIPPED:
            raise NoVerdictError(f"{one.path}, the {name} end: {one.why}")
    if first.finding is not Finding.GOOD:
        raise NoVerdictError(f"{good} is not good: {judge.why_not_good(good)}")
    if last.finding is Finding.GOOD:
        return Search((first, last), None, (), False)
    if good.origin is Origin.RELEASE:
        return _releases(judge, good, bad, report, left_out)
    return _commits(judge, good, bad, report, left_out)


def check(good: Lifted, bad: Lifted, skip: Sequence[str]) -> dict[str, str]:
    """What is left out, by version or commit hash: as it was named. Raises UsageError."""
    if {good.origin, bad.origin} not in ({Origin.RELEASE}, {Origin.REVISION}):
        raise UsageError(
            f"bisect needs two releases (sglang==A and sglang==B) or two commits (sglang@A and sglang@B with "
            f"--repo), not {good} and {bad}."
        )

    def which(name: str) -> str:
        if good.origin is Origin.RELEASE:
            return str(version_of(name.removeprefix("sglang==")))
        return commit_of(Folder(good.repo or "."), name.removeprefix("sglang@"))

    left_out = {which(name): name for name in skip}
    if good.origin is Origin.RELEASE:
        versions = between(*sorted((good.where, bad.where), key=version_of))
        if name := next((left_out[one] for one in left_out if one not in versions), None):
            raise UsageError(
                f"--skip {name}: not one of the releases between the ends: {', '.join(versions)}."
            )
    for end in (good, bad):
        if name := left_out.get(which(end.where)):
            raise UsageError(
                f"--skip {name}: an end of the search, which is judged always. Name another end, or leave it out."
            )
    return left_out


def _releases(
    judge: Court, good: Lifted, bad: Lifted, report: Report, left_out: Mapping[str, str]
) -> Search:
    forward = version_of(good.where) <= version_of(bad.where)
    versions = between(*((good.where, bad.where) if forward else (bad.where, good.where)))
    paths = [Lifted(f"sglang=={version}", Origin.RELEASE, version) for version in versions]
    judge.ahead([path for path in paths if path.where not in left_out])
    tested: list[Judged] = []
    for path in paths:
        why = "left out by --skip"
        skipped = path.where in left_out
        tested.append(Judged(path, Finding.SKIPPED, None, why) if skipped else judge(path))
        span = len(tested), len(versions) - 1
        report(Progress(tested[-1], len(versions), span, (good, bad), forward))
    found = changes(tested)
    nearest = found[0] if forward else found[-1]
    others = tuple(change for change in found if change is not nearest)
    return Search(tuple(tested), nearest, others, one_change=False)


def _commits(
    judge: Court, good: Lifted, bad: Lifted, report: Report, left_out: Mapping[str, str]
) -> Search:
    """The older end, good or bad, is departed from; the first commit that is as the newer end is looked for."""
    repo = Folder(good.repo or ".")
    good_commit, bad_commit = commit_of(repo, good.where), commit_of(repo, bad.where)
    backward = is_ancestor(repo, bad_commit, good_commit)
    start, target = (bad_commit, good_commit) if backward else (good_commit, bad_commit)
    made = Finding.GOOD if backward else Finding.BAD

    def candidate(commit: str) -> Lifted:
        named = {good_commit: str(good), bad_commit: str(bad)}
        return replace(good, text=named.get(commit, f"sglang@{commit[:12]}"), where=commit)

    if not backward and not is_ancestor(repo, start, target):
        _check_base(judge, candidate(merge_base(repo, start, target)), good)
    tested = {commit: judge(candidate(commit)) for commit in (start, target)}
    commits = Commits(repo, {start}, target, set(left_out))
    order = {commit: place for place, commit in enumerate(commits.left())}
    newest_start = start

    def progress(one: Judged | None) -> Progress:
        places = [order[commit] for commit in commits.left()]
        old, new = candidate(newest_start), candidate(commits.bad)
        return Progress(
            one,
            len(order),
            (min(places), max(places)),
            (new, old) if backward else (old, new),
            not backward,
            tuple(sorted(commits.skipped)),
        )

    report(progress(None))
    while middle := commits.middle():
        tested[middle] = one = judged(judge, candidate(middle))
        if one.finding is Finding.SKIPPED:
            commits.skipped.add(middle)
        elif one.finding is made:
            commits.bad = middle
        else:
            commits.good.add(middle)
            newest_start = middle
        report(progress(one))
    suspects = tuple(tested.get(commit) or judge(candidate(commit)) for commit in commits.left())
    before = parent(repo, suspects[0].path.where)
    last = tested[start] if before is None else judged(judge, candidate(before))
    if last.finding is not tested[start].finding:  # more than one change after all
        last = tested[start]
    return Search(tuple(tested.values()), Change(last, suspects), (), one_change=True)


def _check_base(judge: Court, base: Lifted, good: Lifted) -> None:
    """As in git: an end that is no ancestor of the other vouches for their merge base only if that is good too."""
    one = judged(judge, base)
    if one.finding is Finding.BAD:
        raise NoVerdictError(
            f"{good} is no ancestor of the bad end, and their merge base {base} is bad already: the change to find "
            f"is the one that made {good} good, between {base} and {good}."
        )


def judged(judge: Court, path: Lifted) -> Judged:
    """A commit that nobody named may be one without sglang, of another project merged in: that is no mistake."""
    try:
        return judge(path)
    except NoSourceError as error:
        return Judged(path, Finding.SKIPPED, None, str(error))
