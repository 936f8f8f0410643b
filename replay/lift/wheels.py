"""Released sglang wheels: fetched once by pip into the cache, verified by hash, read in place ever after."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

from ...recorders.errors import NoVerdictError, UsageError
from .cache import cache_root

# For reading any wheel will do, so the host's platform does not matter: the tags that sglang publishes, tried in order.
_TAGS = (
    ("manylinux_2_34_x86_64", "3.11"),
    ("manylinux_2_34_x86_64", "3.12"),
    ("manylinux_2_34_x86_64", "3.10"),
)
_TIMEOUT = 600  # seconds for one pip


def wheel_of(version: str) -> Path:
    """The wheel of a release. Raises NoVerdictError where it is not in the cache and cannot be fetched."""
    folder = cache_root() / "sglang" / "wheels"
    wheel = _found(version, folder)
    if wheel is None:
        _fetch(version, folder)
        wheel = _found(version, folder)
    if wheel is None:
        raise NoVerdictError(f"sglang=={version}: pip fetched no wheel into {folder}.")
    return wheel


def in_cache() -> list[str]:
    """Versions whose wheel is in the cache."""
    wheels = (cache_root() / "sglang" / "wheels").glob("sglang-*.whl")
    return sorted({wheel.name.split("-")[1] for wheel in wheels}, key=order)


def recorded_hash(wheel: Path) -> str | None:
    """The sha256 that was written beside the wheel when it was first used."""
    try:
        return _beside(wheel).read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def verified_hash(wheel: Path) -> str:
    """Hash the wheel and hold it against what is written beside it; written there on first use."""
    digest = hashlib.sha256()
    with wheel.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    now, then = digest.hexdigest(), recorded_hash(wheel)
    if then is not None and then != now:
        raise UsageError(
            f"{wheel}: its sha256 is {now[:12]}..., {then[:12]}... was recorded when it was fetched. "
            f"Delete it and {_beside(wheel).name}, and fetch it again."
        )
    if then is None:
        _beside(wheel).write_text(f"{now}\n", encoding="ascii")
    return now


def _beside(wheel: Path) -> Path:
    return wheel.with_name(f"{wheel.name}.sha256")


def _found(version: str, folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob(f"sglang-{version}-*.whl"))), None)


def _fetch(version: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    said = ""
    for platform, python in _TAGS:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--quiet", "--disable-pip-version-check", "--platform", platform]
        command += ["--python-version", python, "--dest", str(folder), f"sglang=={version}"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=_TIMEOUT
            )
        except subprocess.TimeoutExpired:
            said = f"pip did not finish within {_TIMEOUT} s"
            break
        if done.returncode == 0:
            return
        said = done.stderr.strip()[-400:] or "nothing"
        if not re.search(r"No matching distribution|from versions", said):
            break  # no network: another tag will not help
    raise NoVerdictError(
        f"sglang=={version}: the wheel is not in {folder} and could not be fetched. pip said: {said}\n"
        "A wheel fetched elsewhere may be put there by hand."
    )


def order(version: str) -> tuple[int, ...]:
    """By which releases sort: 0.5.9, 0.5.10, 0.5.10.post1."""
    return tuple(int(part) for part in re.findall(r"\d+", version))
