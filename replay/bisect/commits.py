"""Let git choose which commit to judge next, so that merges are handled as in `git bisect`."""

from __future__ import annotations

import subprocess
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from ...recorders.errors import UsageError
from ..lift.git import GIT, commit_of, git_environment


@dataclass(slots=True)
class Commits:
    """The commits that may have made a change: reachable from `bad`, but from no good commit."""

    repo: Path
    good: set[str]
    bad: str
    skipped: set[str] = field(default_factory=set)

    def middle(self) -> str | None:
        """Return the commit that best halves what is left.

        Return None if only `bad` and skipped commits are left.
        """
        output = self._git("rev-list", "--bisect-all", self.bad, "--not", *sorted(self.good))
        ranked = (line.split()[0] for line in output.splitlines())
        usable = (commit for commit in ranked if commit != self.bad)
        return next((commit for commit in usable if commit not in self.skipped), None)

    def left(self) -> list[str]:
        """Return the commits that may still be the answer, oldest first. The last one is `bad`."""
        output = self._git(
            "rev-list", "--topo-order", "--reverse", self.bad, "--not", *sorted(self.good)
        )
        return output.split()

    def _git(self, *arguments: str) -> str:
        return run_git(self.repo, *arguments)


def is_ancestor(repo: Path, older: str, newer: str) -> bool:
    """Whether `older` is an ancestor of `newer`, or the same commit."""
    command = [*GIT, "-C", str(repo), "merge-base", "--is-ancestor", older, newer]
    done = subprocess.run(command, env=git_environment(), capture_output=True, check=False)
    return done.returncode == 0


def merge_base(repo: Path, one: str, other: str) -> str:
    """Return the merge base of two commits. Raises UsageError if they have no common history."""
    try:
        return run_git(repo, "merge-base", one, other).strip()
    except UsageError:
        raise UsageError(
            f"{one[:12]} and {other[:12]} have no common history in {repo}, so there are no commits between them."
            f"{_unshallow(repo)}"
        ) from None


def parent(repo: Path, commit: str) -> str | None:
    """Return the first parent of a commit.

    Return None for a root commit. A history that was merged into another one starts with its own
    root commit.
    """
    output = run_git(repo, "rev-list", "--parents", "--max-count=1", commit).split()
    return output[1] if len(output) > 1 else None


def first_parents(repo: Path, oldest: str, newest: str, under: Collection[str]) -> list[str]:
    """Return both ends and the commits between them that touch the folders `under`, oldest first.

    Only first parents are followed. Raises UsageError if the first parents of `newest` do not lead
    to `oldest`: then a commit would be compared with one that is not its predecessor, and could be
    blamed for a change that it did not make.
    """
    _check_line(repo, oldest, newest)
    # `:(top)`: otherwise git resolves the paths relative to `repo`, which may be a subfolder
    paths = [f":(top){folder}" for folder in under]
    output = run_git(
        repo, "rev-list", "--first-parent", "--reverse", f"{oldest}..{newest}", "--", *paths
    )
    ends = [commit_of(repo, oldest), *output.split(), commit_of(repo, newest)]
    return list(dict.fromkeys(ends))


def _check_line(repo: Path, oldest: str, newest: str) -> None:
    """Raise UsageError unless `oldest` is among the first parents of `newest`, and say what to do."""
    if oldest in run_git(repo, "rev-list", "--first-parent", newest).split():
        return
    old, new = oldest[:12], newest[:12]
    if is_ancestor(repo, newest, oldest):
        why = f"{new} is the older of the two. Pass the older commit as --from."
    elif is_ancestor(repo, oldest, newest):
        why = (
            f"{old} came into {new} through a merge, so it is not among the first parents of {new}."
            f"{_from_base(repo, oldest, newest)}"
        )
    else:
        why = (
            f"{old} is not an ancestor of {new}, so the commits between them do not form one line."
            f"{_from_base(repo, oldest, newest)}"
        )
    raise UsageError(f"no history leads from {old} to {new} in {repo}: {why}{_unshallow(repo)}")


def _from_base(repo: Path, oldest: str, newest: str) -> str:
    """Suggest the commit where the two histories part.

    Tags of different release branches are not on one line, but each is on one line with that commit.
    """
    beside = run_git(repo, "rev-list", "--first-parent", newest, "--not", oldest).split()
    base = parent(repo, beside[-1])
    if base is None:
        return ""
    return (
        f" They part at {subject(repo, base)!r}. To see what was added to {newest[:12]} since then, use "
        f"--from sglang@{base[:12]}; add --to sglang@{oldest[:12]} to see what was added to {oldest[:12]}."
    )


def _unshallow(repo: Path) -> str:
    """Return a hint if the clone is shallow: git cannot know all ancestors there."""
    if run_git(repo, "rev-parse", "--is-shallow-repository").strip() != "true":
        return ""
    return " The clone is shallow. `git fetch --unshallow` there may fetch the missing commits."


def subject(repo: Path, commit: str) -> str:
    """Return the date and subject of a commit on one line. Undecodable bytes become U+FFFD."""
    output = run_git(repo, "show", "--no-patch", "--encoding=UTF-8", "--format=%cs %s", commit)
    return output.strip()


def run_git(repo: Path, *arguments: str) -> str:
    """Run git and return its output. Raises UsageError if git fails."""
    done = subprocess.run(
        [*GIT, "-C", str(repo), *arguments],
        env=git_environment(),
        capture_output=True,
        encoding="utf-8",
        errors="replace",  # a commit may contain bytes that are not UTF-8
        check=False,
    )
    if done.returncode:
        raise UsageError(f"git {arguments[0]} in {repo}: {done.stderr.strip() or 'failed'}")
    return done.stdout
