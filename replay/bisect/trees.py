"""sglang's package as it was at a commit, written into a folder: the clone's own files and index are not touched."""

from __future__ import annotations

import subprocess
from contextlib import closing
from pathlib import Path

from ...recorders.errors import NoVerdictError, UsageError
from ..lift.git import GIT, CatFile, GitSource, git_environment
from ..lift.releases import RELEASES
from .commits import run_git


def root_of(repo: Path, name: str, commit: str) -> str:
    """Where the package lies in the repository at a commit. Raises NoSourceError where it holds none."""
    with closing(CatFile(repo)) as files:
        return GitSource(name, commit, files).root


def release_before(repo: Path, commit: str) -> str | None:
    """The release that the nearest tag names (v0.5.12), which a tree without a build does not say; None where none does."""
    try:
        which = ("--abbrev=0", "--match", "v[0-9]*", "--exclude", "*rc*")
        tag = run_git(repo, "describe", "--tags", *which, commit)
    except UsageError:
        return None
    version = tag.strip().removeprefix("v")
    return version if version in RELEASES else None


def write_out(repo: Path, tree: str, folder: Path) -> None:
    """A tree into `folder`/sglang. Raises NoVerdictError where git cannot: there is no room for it, say."""
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
            said = done.stderr.strip().splitlines() or ["failed"]  # a line for each file, maybe
            more = f" (and {len(said) - 1} more lines)" if len(said) > 1 else ""
            raise NoVerdictError(f"git cannot write it out: {said[0]}{more}")
