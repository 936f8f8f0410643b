"""Which commit to judge next: git's own choice, so that merges and odd histories go as in `git bisect`."""

from __future__ import annotations

import subprocess
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from ...recorders.errors import UsageError
from ..lift.git import GIT, commit_of, git_environment


@dataclass(slots=True)
class Commits:
    """The commits that may have made a change: what `bad` reaches and no good one does."""

    repo: Path
    good: set[str]
    bad: str
    skipped: set[str] = field(default_factory=set)

    def middle(self) -> str | None:
        """The commit that halves what is left; None where nothing is left but `bad` and skipped ones."""
        told = self._git("rev-list", "--bisect-all", self.bad, "--not", *sorted(self.good))
        ranked = (line.split()[0] for line in told.splitlines())
        usable = (commit for commit in ranked if commit != self.bad)
        return next((commit for commit in usable if commit not in self.skipped), None)

    def left(self) -> list[str]:
        """Oldest first, `bad` the last of them."""
        told = self._git(
            "rev-list", "--topo-order", "--reverse", self.bad, "--not", *sorted(self.good)
        )
        return told.split()

    def _git(self, *arguments: str) -> str:
        return run_git(self.repo, *arguments)


def is_ancestor(repo: Path, older: str, newer: str) -> bool:
    command = [*GIT, "-C", str(repo), "merge-base", "--is-ancestor", older, newer]
    done = subprocess.run(command, env=git_environment(), capture_output=True, check=False)
    return done.returncode == 0


def merge_base(repo: Path, one: str, other: str) -> str:
    """Raises UsageError where they have no common history."""
    try:
        return run_git(repo, "merge-base", one, other).strip()
    except UsageError:
        raise UsageError(
            f"{one[:12]} and {other[:12]} have no common history in {repo}: nothing lies between them."
            f"{_unshallow(repo)}"
        ) from None


def parent(repo: Path, commit: str) -> str | None:
    """The first one; None where it has none: a history that was merged into another begins with such a commit."""
    told = run_git(repo, "rev-list", "--parents", "--max-count=1", commit).split()
    return told[1] if len(told) > 1 else None


def first_parents(repo: Path, oldest: str, newest: str, under: Collection[str]) -> list[str]:
    """Both ends, and what lies between them along first parents and touches these folders; oldest first.

    Raises UsageError where the first parents of `newest` do not lead to `oldest`: then each commit would not be held
    against the one before it, and one that is innocent be blamed.
    """
    _check_line(repo, oldest, newest)
    # from the top, or they are read as of `repo`, which may be a folder inside
    paths = [f":(top){folder}" for folder in under]
    told = run_git(
        repo, "rev-list", "--first-parent", "--reverse", f"{oldest}..{newest}", "--", *paths
    )
    ends = [commit_of(repo, oldest), *told.split(), commit_of(repo, newest)]
    return list(dict.fromkeys(ends))


def _check_line(repo: Path, oldest: str, newest: str) -> None:
    if oldest in run_git(repo, "rev-list", "--first-parent", newest).split():
        return
    old, new = oldest[:12], newest[:12]
    if is_ancestor(repo, newest, oldest):
        why = f"{new} is the older one of the two, and --from is for that."
    elif is_ancestor(repo, oldest, newest):
        why = (
            f"{old} came into {new} by a merge, and lies on another branch than its first parents."
            f"{_from_base(repo, oldest, newest)}"
        )
    else:
        why = (
            f"{old} is no ancestor of {new}: not each commit between them is made from the one before."
            f"{_from_base(repo, oldest, newest)}"
        )
    raise UsageError(f"no history leads from {old} to {new} in {repo}: {why}{_unshallow(repo)}")


def _from_base(repo: Path, oldest: str, newest: str) -> str:
    """Tags of different release branches have none between them, but one each since they parted."""
    beside = run_git(repo, "rev-list", "--first-parent", newest, "--not", oldest).split()
    base = parent(repo, beside[-1])
    if base is None:
        return ""
    return (
        f" They part at {subject(repo, base)!r}: --from sglang@{base[:12]} tells what came to {newest[:12]} since; "
        f"with --to sglang@{oldest[:12]}, what came to that."
    )


def _unshallow(repo: Path) -> str:
    """Where a clone is cut off, nobody knows what is whose ancestor."""
    if run_git(repo, "rev-parse", "--is-shallow-repository").strip() != "true":
        return ""
    return " The clone is shallow: `git fetch --unshallow` there may bring what is missing."


def subject(repo: Path, commit: str) -> str:
    """Date and subject of a commit, on one line; what is not text in them stands as U+FFFD."""
    told = run_git(repo, "show", "--no-patch", "--encoding=UTF-8", "--format=%cs %s", commit)
    return told.strip()


def run_git(repo: Path, *arguments: str) -> str:
    done = subprocess.run(
        [*GIT, "-C", str(repo), *arguments],
        env=git_environment(),
        capture_output=True,
        encoding="utf-8",
        errors="replace",  # git passes on what is in a commit, whatever it is
        check=False,
    )
    if done.returncode:
        raise UsageError(f"git {arguments[0]} in {repo}: {done.stderr.strip() or 'failed'}")
    return done.stdout
