"""A git clone of sglang as a user has it, built from the releases' wheels."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from lifting import files_of, write_tree


def git(repo: Path, *arguments: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", *who, "-C", str(repo), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def commit(repo: Path, message: str) -> None:
    git(repo, "add", "--all")
    git(repo, "commit", "--quiet", "--message", message)


def clone(repo: Path, versions: Iterable[str]) -> Path:
    """Commit and tag each release, each followed by a commit that does not change the books."""
    git(repo, "init", "--quiet", "--initial-branch=main")
    for version in versions:
        shutil.rmtree(repo / "python", ignore_errors=True)
        write_tree(repo, files_of(version))
        commit(repo, f"sglang {version}")
        git(repo, "tag", f"v{version}")
        (repo / "README.md").write_text(f"behind {version}")
        commit(repo, "docs")
        git(repo, "tag", f"behind-{version}")
    return repo
