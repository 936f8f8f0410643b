"""Released sglang wheels: pip fetches each one once into the cache; it is verified by hash and read in place."""

from __future__ import annotations

import hashlib
from pathlib import Path

from packaging.version import Version

from ...recorders.errors import NoVerdictError, UsageError
from ..spec import is_version
from .cache import cache_root
from .fetch import fetch


def wheel_of(version: str) -> Path:
    """Return the wheel of a release. It is fetched if it is not in the cache.

    Raises UsageError if there is no such release, NoVerdictError if it cannot be fetched.
    """
    folder = _folder()
    wheel = found(version)
    if wheel is None:
        fetch(version, folder, in_cache())
        wheel = found(version)
    if wheel is None:
        raise NoVerdictError(f"sglang=={version}: pip fetched no wheel into {folder}.")
    return wheel


def found(version: str) -> Path | None:
    """Return the wheel of a release in the cache; None if it has not been fetched."""
    return next(iter(sorted(_folder().glob(f"sglang-{version}-*.whl"))), None)


def in_cache() -> list[str]:
    """Return the versions whose wheel is in the cache, oldest first."""
    named = {wheel.name.split("-")[1] for wheel in _folder().glob("sglang-*.whl")}
    # The folder may contain other wheels that a user put there, such as nightly builds.
    return sorted(filter(is_version, named), key=Version)


def recorded_hash(wheel: Path) -> str | None:
    """Return the sha256 that was stored beside the wheel at its first use."""
    try:
        return _beside(wheel).read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def verified_hash(wheel: Path) -> str:
    """Hash the wheel and compare with the hash stored beside it, which is written at the first use."""
    digest = hashlib.sha256()
    with wheel.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    now, then = digest.hexdigest(), recorded_hash(wheel)
    if then is not None and then != now:
        raise UsageError(
            f"{wheel}: its sha256 is {now[:12]}..., but {then[:12]}... was recorded when it was fetched. "
            f"Delete it and {_beside(wheel).name}; specdiff then fetches it again."
        )
    if then is None:
        _beside(wheel).write_text(f"{now}\n", encoding="ascii")
    return now


def _beside(wheel: Path) -> Path:
    return wheel.with_name(f"{wheel.name}.sha256")


def _folder() -> Path:
    return cache_root() / "sglang" / "wheels"
