"""The known sglang releases, oldest first."""

from __future__ import annotations

from packaging.version import InvalidVersion, Version

from ...recorders.errors import UsageError
from .wheels import in_cache

RELEASES = (
    "0.5.9",
    "0.5.10",
    "0.5.10.post1",
    "0.5.11",
    "0.5.12",
    "0.5.12.post1",
    "0.5.13",
    "0.5.13.post1",
    "0.5.14",
    "0.5.15",
    "0.5.15.post1",
    "0.5.16",
    "0.5.17",
    "0.5.18",
    "0.5.19",
    "0.5.20",
    "0.5.21",
    "0.5.22",
    "0.5.23",
)


def between(oldest: str, newest: str) -> list[str]:
    """Return both ends and every release between them: those listed here, and others whose wheel is in the cache."""
    first, last = version_of(oldest), version_of(newest)
    found = {oldest, newest, *RELEASES, *in_cache()}
    return sorted((v for v in found if first <= version_of(v) <= last), key=version_of)


def version_of(text: str) -> Version:
    """Return a version that sorts correctly: 0.5.10.post1 is between 0.5.10 and 0.5.11.

    Raises UsageError if invalid.
    """
    try:
        return Version(text)
    except InvalidVersion:
        raise UsageError(f"{text!r} is not a version such as 0.5.11.") from None
