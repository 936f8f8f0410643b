"""The search for a change: judges every release between two, but as few commits as possible."""

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
from .judge import Finding, JudgedCandidate
from .line import Change, changes


@dataclass(frozen=True, slots=True)
class SearchProgress:
    """How far a search has come.

    Candidates are numbered oldest first; `span` holds the first and the last that may be the answer.
    `ends` holds the nearest good and bad ends known so far: a stopped search can resume from them.
    """

    tested: JudgedCandidate | None
    of: int
    span: tuple[int, int]
    ends: tuple[Lifted, Lifted]
    forward: bool = True  # the good end is the older one
    skipped: tuple[str, ...] = ()

    @property
    def left(self) -> int:
        return self.span[1] - self.span[0] + 1


Report = Callable[[SearchProgress], None]


class CandidateJudge(Protocol):
    """Judges candidates: a `Judge` by their books, a `LawJudge` by playing a scenario."""

    def __call__(self, path: Lifted) -> JudgedCandidate: ...

    def prefetch(self, paths: Sequence[Lifted]) -> None:
        """Announce candidates that will be judged, in this order."""

    def why_not_good(self, end: Lifted) -> str:
        """Explain why an end that was called good is not good, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Search:
    """The result of a search.

    `change` is the change nearest to the good end, or None if both ends are good. `others` holds all
    further changes. `one_change` is true if the search assumed that there is only one change.
    """

    tested: tuple[JudgedCandidate, ...]
    change: Change | None
    others: tuple[Change, ...]
    one_change: bool


def search(
    judge: CandidateJudge, good: Lifted, bad: Lifted, report: Report, skip: Sequence[str] = ()
) -> Search:
    """Search for the change between `good` and `bad`.

    `skip` names commits or releases to leave out, with or without the prefix that the ends have.

    Raises NoVerdictError if an end cannot be judged or the good end is not good, and UsageError if
    there is nothing between the ends or `skip` names an end.
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
    """Check the ends and `skip`; return the names to skip, by version or commit hash.

    Raises UsageError.
    """
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
                f"--skip {name}: not a release between the ends. Those are {', '.join(versions)}."
            )
    for end in (good, bad):
        if name := left_out.get(which(end.where)):
            raise UsageError(
                f"--skip {name}: an end of the search is always judged. Choose another end, or drop this --skip."
            )
    return left_out


def _releases(
    judge: CandidateJudge, good: Lifted, bad: Lifted, report: Report, left_out: Mapping[str, str]
) -> Search:
    """Search between releases: judge all of them, so that changes back are found too."""
    forward = version_of(good.where) <= version_of(bad.where)
    versions = between(*((good.where, bad.where) if forward else (bad.where, good.where)))
    paths = [Lifted(f"sglang=={version}", Origin.RELEASE, version) for version in versions]
    judge.prefetch([path for path in paths if path.where not in left_out])
    tested: list[JudgedCandidate] = []
    for path in paths:
        why = "left out by --skip"
        skipped = path.where in left_out
        tested.append(JudgedCandidate(path, Finding.SKIPPED, None, why) if skipped else judge(path))
        span = len(tested), len(versions) - 1
        report(SearchProgress(tested[-1], len(versions), span, (good, bad), forward))
    found = changes(tested)
    nearest = found[0] if forward else found[-1]
    others = tuple(change for change in found if change is not nearest)
    return Search(tuple(tested), nearest, others, one_change=False)


def _commits(
    judge: CandidateJudge, good: Lifted, bad: Lifted, report: Report, left_out: Mapping[str, str]
) -> Search:
    """Search between commits, with git choosing the next one to judge.

    The search starts from the older end, good or bad, and looks for the first commit with the
    finding of the newer end.
    """
    repo = Folder(good.repo or ".")
    good_commit, bad_commit = commit_of(repo, good.where), commit_of(repo, bad.where)
    backward = is_ancestor(repo, bad_commit, good_commit)
    start, target = (bad_commit, good_commit) if backward else (good_commit, bad_commit)
    newer_finding = Finding.GOOD if backward else Finding.BAD

    def candidate(commit: str) -> Lifted:
        named = {good_commit: str(good), bad_commit: str(bad)}
        return replace(good, text=named.get(commit, f"sglang@{commit[:12]}"), where=commit)

    if not backward and not is_ancestor(repo, start, target):
        _check_base(judge, candidate(merge_base(repo, start, target)), good)
    tested = {commit: judge(candidate(commit)) for commit in (start, target)}
    commits = Commits(repo, {start}, target, set(left_out))
    order = {commit: place for place, commit in enumerate(commits.left())}
    newest_start = start

    def progress(one: JudgedCandidate | None) -> SearchProgress:
        places = [order[commit] for commit in commits.left()]
        old, new = candidate(newest_start), candidate(commits.bad)
        return SearchProgress(
            one,
            len(order),
            (min(places), max(places)),
            (new, old) if backward else (old, new),
            not backward,
            tuple(sorted(commits.skipped)),
        )

    report(progress(None))
    while middle := commits.middle():
        tested[middle] = one = judge_or_skip(judge, candidate(middle))
        if one.finding is Finding.SKIPPED:
            commits.skipped.add(middle)
        elif one.finding is newer_finding:
            commits.bad = middle
        else:
            commits.good.add(middle)
            newest_start = middle
        report(progress(one))
    suspects = tuple(tested.get(commit) or judge(candidate(commit)) for commit in commits.left())
    before = parent(repo, suspects[0].path.where)
    last = tested[start] if before is None else judge_or_skip(judge, candidate(before))
    if last.finding is not tested[start].finding:  # there is more than one change after all
        last = tested[start]
    return Search(tuple(tested.values()), Change(last, suspects), (), one_change=True)


def _check_base(judge: CandidateJudge, base: Lifted, good: Lifted) -> None:
    """Check that the merge base is good, as git does if no end is an ancestor of the other.

    Raises NoVerdictError if it is bad.
    """
    one = judge_or_skip(judge, base)
    if one.finding is Finding.BAD:
        raise NoVerdictError(
            f"{good} is not an ancestor of the bad end, and their merge base {base} is already bad. The change to "
            f"look for is the one between {base} and {good} that made {good} good."
        )


def judge_or_skip(judge: CandidateJudge, path: Lifted) -> JudgedCandidate:
    """Judge a candidate; skip it if it has no sglang.

    A commit between the ends may belong to another project that was merged in, so this is not an error.
    """
    try:
        return judge(path)
    except NoSourceError as error:
        return JudgedCandidate(path, Finding.SKIPPED, None, str(error))
