"""Which processes were started with a mark in their environment (Linux)."""

from __future__ import annotations

import os
import time
from pathlib import Path

_LOOKS = 50
_PAUSE_S = 0.001


def marked(mark: str) -> set[int]:
    """`mark`: NAME=VALUE. By the environment, as a parent link does not outlive the parent; this process left out.

    A process that is just becoming another program has no environment for a moment: those without one are looked at again, all
    together, for a twentieth of a second. Who has none in earnest keeps having none.
    """
    wanted, found = f"{mark}\0".encode(), set()
    unsaid = list(Path("/proc").glob("[0-9]*"))
    for _ in range(_LOOKS):
        environments = {folder: _environment(folder) for folder in unsaid}
        found |= {
            int(folder.name)
            for folder, one in environments.items()
            if one and wanted in one + b"\0"
        }
        unsaid = [folder for folder, one in environments.items() if one == b""]
        if not unsaid:
            break
        time.sleep(_PAUSE_S)
    return found - {os.getpid()}


def _environment(folder: Path) -> bytes | None:
    """b"" where there is none now; None where none is to be had: it is over, another user's, or a thread of the kernel."""
    try:
        os.readlink(folder / "exe")
        return (folder / "environ").read_bytes()
    except ProcessLookupError:  # between two programs
        return b""
    except OSError:
        return None
