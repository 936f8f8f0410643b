"""Every error that specdiff raises on purpose; the exit codes are chosen in `cli`, not here."""

from __future__ import annotations

import shlex
from pathlib import Path

COPY_AGAIN = "Copy the file again from where it was recorded."


class SpecdiffError(Exception):
    """Root of all errors whose message is meant for a person: found, expected, where, what to do."""


class RecordingError(SpecdiffError):
    """A recording, a journal or a folder of them cannot be read as one."""


class UsageError(SpecdiffError):
    """A path spec, fix number, quantity or option that does not exist."""


class NoVerdictError(SpecdiffError):
    """A path cannot run on this recording, or nothing was there to compare."""


def to_recover(folder: Path) -> str:
    """The command, to be copied."""
    return shlex.join(["specdiff", "recover", str(folder)])
