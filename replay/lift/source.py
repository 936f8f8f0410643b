"""Read sglang's files from a folder or a wheel.

Nothing is unpacked, and only requested files are read.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...recorders.errors import UsageError

PROBE = "srt/managers/schedule_batch.py"  # every sglang has this file
ROOTS = ("", "sglang", "python/sglang")  # the package itself, site-packages, a clone


class Source(Protocol):
    """The files of one sglang.

    Paths are relative to the package: `srt/managers/schedule_batch.py`.
    """

    @property
    def name(self) -> str:
        """The name used in messages."""

    def read(self, path: str) -> str | None:
        """Return the text of a file; None if this sglang has no such file."""


@dataclass(frozen=True, slots=True)
class DirSource:
    """A source tree, a site-packages folder or the package itself."""

    name: str
    root: Path  # the sglang package

    def read(self, path: str) -> str | None:
        try:
            return (self.root / path).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A wheel, read in place."""

    name: str
    wheel: zipfile.ZipFile

    def read(self, path: str) -> str | None:
        try:
            return self.wheel.read(f"sglang/{path}").decode("utf-8")
        except KeyError:
            return None


def open_dir(folder: Path, name: str | None = None) -> DirSource:
    """Open a folder. Raises UsageError if it contains no sglang."""
    for root in ROOTS:
        if (folder / root / PROBE).is_file():
            return DirSource(name or str(folder), folder / root)
    looked = ", ".join(str(Path(root) / PROBE) for root in ROOTS)
    raise UsageError(
        f"path {str(folder)!r}: no sglang source tree found. Looked for {looked}. "
        "Give a clone, a site-packages folder or the sglang package."
    )


def open_wheel(path: Path, name: str) -> WheelSource:
    """Open a wheel. Raises UsageError if the file is not a readable sglang wheel."""
    try:
        source = WheelSource(name, zipfile.ZipFile(path))
    except (OSError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"{path} is not a readable wheel ({error}). Delete it and try again."
        ) from None
    if source.read(PROBE) is None:
        raise UsageError(f"{path} is not an sglang wheel: it does not contain sglang/{PROBE}.")
    return source
