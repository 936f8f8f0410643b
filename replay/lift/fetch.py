"""Fetch one wheel from the package index with pip, or report in pip's words why that failed."""

from __future__ import annotations

import difflib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...recorders.errors import NoVerdictError, UsageError

# Any wheel can be read, so the host's platform does not matter. These are the tags that sglang
# publishes, in order.
_TAGS = (
    ("manylinux_2_34_x86_64", "3.11"),
    ("manylinux_2_34_x86_64", "3.12"),
    ("manylinux_2_34_x86_64", "3.10"),
)
_TIMEOUT = 600  # seconds for one pip command
_SHOWN = 20  # releases listed in a message, the newest

_LISTED = re.compile(r"\(from versions: ([^)]*)\)")
_UNREACHED = re.compile(r"^WARNING: Retrying|Could not fetch URL", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _PipOutput:
    """What pip printed when it fetched nothing."""

    text: str

    @property
    def versions(self) -> list[str]:
        """The versions that the index has for these tags, oldest first; empty if the index was not reached."""
        listed = _LISTED.search(self.text)
        return listed[1].split(", ") if listed and listed[1] != "none" else []

    @property
    def answered(self) -> bool:
        """Whether every index was reached.

        Only then does a release that is not listed not exist.
        """
        return bool(self.versions) and not _UNREACHED.search(self.text)

    @property
    def cause(self) -> str:
        """The output, with only the last of consecutive retries and without the list of releases."""
        lines = self.text.splitlines()
        kept = [
            line
            for line, after in zip(lines, [*lines[1:], ""], strict=True)
            if not (_is_retry(line) and _is_retry(after))
        ]
        return "\n".join(_LISTED.sub("", line) for line in kept) or "nothing"


def fetch(version: str, folder: Path, cached: list[str]) -> None:
    """Download the wheel of a release into the folder.

    `cached` lists the releases in the cache, for the message. Raises UsageError if the index has no
    such release, and NoVerdictError if the index could not be queried.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known: list[str] = []
    for output in _attempts(version, folder):
        if output is None:
            return
        if not output.answered:
            raise NoVerdictError(
                f"sglang=={version}: the wheel is not in {folder} and could not be fetched.{_in_cache(cached)} "
                f"You can also put a wheel fetched elsewhere into that folder.\npip said:\n{output.cause}"
            )
        known += (one for one in output.versions if one not in known)
    near = difflib.get_close_matches(version, known, n=1, cutoff=0.8)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UsageError(
        f"path 'sglang=={version}': the package index has no wheel for this release (No matching distribution).{hint} "
        f"The index has {len(known)} releases; the last are {', '.join(known[-_SHOWN:])}."
    )


def _attempts(version: str, folder: Path) -> Iterator[_PipOutput | None]:
    """Run pip for each tag. Yield its output, or None if it fetched the wheel."""
    for platform, python in _TAGS:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--no-color", "--progress-bar", "off", "--disable-pip-version-check"]
        command += ["--retries", "3"]  # without retries, pip does not say what the problem was
        command += ["--platform", platform, "--python-version", python]
        command += ["--dest", str(folder), f"sglang=={version}"]
        try:
            done = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=_TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            yield _PipOutput(f"it did not finish within {_TIMEOUT} s")
            continue
        yield None if done.returncode == 0 else _PipOutput(done.stdout.strip())


def _is_retry(line: str) -> bool:
    return line.startswith("WARNING: Retrying")


def _in_cache(cached: list[str]) -> str:
    return f" In the cache: {', '.join(cached)}." if cached else ""
