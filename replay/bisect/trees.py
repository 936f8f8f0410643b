"""sglang's package as it was at a commit, written into a folder: the clone's own files and index are not touched."""

from __future__ import annotations

import os
import subprocess
from contextlib import closing
from pathlib import Path

from ...recorders.errors import NoVerdictError
from ..lift.git import GIT, CatFile, GitSource


def root_of(repo: Path, name: str, commit: str) -> str:
    """Where the package lies in the repository at a commit. Raises NoSourceError where it holds none."""
    with closing(CatFile(repo)) as files:
        return GitSource(name, commit, files).root


def write_out(repo: Path, tree: str, folder: Path) -> None:
    """A tree into `folder`/sglang. Raises NoVerdictError where git cannot: there is no room for it, say."""
    package = folder / "sglang"
    package.mkdir(parents=True)
    index = {**os.environ, "GIT_INDEX_FILE": str((folder / "index").resolve())}
    git = [*GIT, "-C", str(repo)]
    files = [*git, f"--work-tree={package.resolve()}", "checkout-index", "--all"]
    for command in ([*git, "read-tree", tree], files):
        done = subprocess.run(
            command, env=index, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
        if done.returncode:
            raise NoVerdictError(f"git cannot write it out: {done.stderr.strip() or 'failed'}")
