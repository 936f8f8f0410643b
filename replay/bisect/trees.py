"""Write sglang's package at a commit into a folder, without touching the clone's files or index."""

from __future__ import annotations

import subprocess
from contextlib import closing
from pathlib import Path

from ...recorders.errors import NoVerdictError, UsageError
from ..lift.git import GIT, CatFile, GitSource, git_environment
from ..lift.releases import RELEASES
from .commits import run_git


def root_of(repo: Path, name: str, commit: str) -> str:
    """Return where the package is in the repository at a commit.

    Raises NoSourceError if the commit has no sglang package.
    """
    with closing(CatFile(repo)) as files:
        return GitSource(name, commit, files).root


def release_before(repo: Path, commit: str) -> str | None:
    """Return the release of the nearest tag before a commit (v0.5.12), or None if there is none.

    A source tree that was never built does not know its own version.
    """
    try:
        which = ("--abbrev=0", "--match", "v[0-9]*", "--exclude", "*rc*")
        tag = run_git(repo, "describe", "--tags", *which, commit)
    except UsageError:
        return None
    version = tag.strip().removeprefix("v")
    return version if version in RELEASES else None


def write_out(repo: Path, tree: str, folder: Path) -> None:
    """Write a git tree into `folder`/sglang. Raises NoVerdictError if git fails, as on a full disk."""
    package = folder / "sglang"
    package.mkdir(parents=True)
    index = git_environment() | {"GIT_INDEX_FILE": str((folder / "index").resolve())}
    git = [*GIT, "-C", str(repo)]
    files = [*git, f"--work-tree={package.resolve()}", "checkout-index", "--all"]
    for command in ([*git, "read-tree", tree], files):
        done = subprocess.run(
            command, env=index, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["failed"]  # git may print a line per file
            more = f" (and {len(said) - 1} more lines)" if len(said) > 1 else ""
            raise NoVerdictError(f"git cannot write out its source tree: {said[0]}{more}")
