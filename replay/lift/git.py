"""Read sglang at a commit through one `git cat-file --batch` process. Nothing is checked out."""

from __future__ import annotations

import os
import subprocess
from contextlib import closing
from pathlib import Path
from typing import IO

from ...recorders.errors import UsageError
from .source import PROBE, ROOTS

GIT = ("git", "--no-pager", "-c", "core.quotePath=false")
_OF_ANOTHER = (  # if these are set, as in a hook, git would use another repository than the given one
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
)


def git_environment() -> dict[str, str]:
    """Return the environment without variables that point git to another repository."""
    return {name: value for name, value in os.environ.items() if name not in _OF_ANOTHER}


class NoSourceError(UsageError):
    """A commit contains no sglang: an error if the user named it, skipped if it is between two other commits."""


def commit_of(repo: Path, revision: str) -> str:
    """Return the full hash of a commit, tag or branch. Raises UsageError if there is none."""
    if not repo.is_dir():
        raise UsageError(f"--repo {str(repo)!r}: no such folder.")
    command = [*GIT, "-C", str(repo), "rev-parse", "--verify", "--quiet", "--end-of-options"]
    try:
        done = subprocess.run(
            [*command, f"{revision}^{{commit}}"],
            env=git_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise UsageError("sglang@REV needs git, which is not installed.") from None
    if done.returncode:
        inside = subprocess.run(
            [*GIT, "-C", str(repo), "rev-parse", "--git-dir"],
            env=git_environment(),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if inside.returncode:  # no repository, or another user's; git says which, and what to do
            raise UsageError(
                f"--repo {str(repo)!r}: git cannot read a repository there: {inside.stderr.strip()}"
            )
        raise UsageError(
            f"path 'sglang@{revision}': {repo} has no such commit, tag or branch. "
            "Try `git fetch --tags` there."
        )
    return done.stdout.strip()


class CatFile:
    """One `git cat-file --batch` process, for any number of commits."""

    def __init__(self, repo: Path) -> None:
        self._process = subprocess.Popen(
            [*GIT, "-C", str(repo), "cat-file", "--batch"],
            env=git_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def close(self) -> None:
        _pipe(self._process.stdin).close()
        self._process.wait()
        _pipe(self._process.stdout).close()

    def blob(self, commit: str, path: str) -> bytes | None:
        """Return the contents of a file at a commit; None if the commit has no such file."""
        asked, answer = _pipe(self._process.stdin), _pipe(self._process.stdout)
        asked.write(f"{commit}:{path}\n".encode())
        asked.flush()
        header = answer.readline().split()
        if len(header) != 3:  # "... missing", or the process has exited
            return None
        data = answer.read(int(header[2]))
        answer.read(1)
        return data if header[1] == b"blob" else None


class GitSource:
    """sglang at one commit. Raises NoSourceError if the commit contains no sglang."""

    def __init__(self, name: str, commit: str, files: CatFile) -> None:
        self.name, self._commit, self._files = name, commit, files
        roots = (root for root in ROOTS if files.blob(commit, _join(root, PROBE)) is not None)
        found = next(roots, None)
        if found is None:
            raise NoSourceError(f"path {name!r}: commit {commit[:12]} holds no sglang source tree.")
        self.root = found  # path of the sglang package in the repository

    def read(self, path: str) -> str | None:
        data = self._files.blob(self._commit, _join(self.root, path))
        return None if data is None else data.decode("utf-8")


def check_sglang(repo: Path, name: str, commit: str) -> None:
    """Raise NoSourceError if the commit contains no sglang."""
    with closing(CatFile(repo)) as files:
        GitSource(name, commit, files)


def _join(root: str, path: str) -> str:
    return f"{root}/{path}" if root else path


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe
