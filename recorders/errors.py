"""The errors that specdiff raises on purpose. `cli` maps them to exit codes."""

from __future__ import annotations

import shlex
from pathlib import Path

_ID_HEAD, _ID_TAIL = 60, 37  # characters of a long request id that reports print; with "..." 100
COPY_AGAIN = "Copy the file again from where it was recorded."


class SpecdiffError(Exception):
    """Base class of all errors with a message for the user: where, what was found, what was
    expected, what to do."""


class RecordingError(SpecdiffError):
    """A recording, a journal, or a folder of them cannot be read."""


class UsageError(SpecdiffError):
    """The user named a path spec, fix number, quantity or option that does not exist."""


class NoVerdictError(SpecdiffError):
    """A path cannot run on this recording, or there was nothing to compare."""


def to_recover(folder: Path) -> str:
    """Return the `specdiff recover` command for a folder, quoted for a shell."""
    return shlex.join(["specdiff", "recover", str(folder)])


def is_a_journal(path: Path) -> str:
    """Say that this is a journal where something else was expected. A ring's journal is a folder."""
    return f"{path}: a journal, not yet a recording. Run `{to_recover(path.parent)}`."


def printable(text: str) -> str:
    """Escape control characters and line breaks in a string that came from a client or a file."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_id(rid: str) -> str:
    """Return a request id as text reports print it: escaped, and a long one without its middle.

    Clients choose ids of any length. Similar ids may differ only at the end, so the end stays.
    """
    text = printable(rid)
    if len(text) <= _ID_HEAD + len("...") + _ID_TAIL:
        return text
    return f"{text[:_ID_HEAD]}...{text[-_ID_TAIL:]}"
