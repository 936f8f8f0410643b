"""Find the processes that have a given variable in their environment (Linux)."""

from __future__ import annotations

import os
import time
from pathlib import Path

_LOOKS = 50
_PAUSE_S = 0.001


def pids_with_env(variable: str) -> set[int]:
    """Return the pids of all processes started with `variable` (NAME=VALUE), except for this process.

    Parent links would not do, because they do not outlive the parent.

    A process in the middle of an exec has no environment for a moment. Processes without an
    environment are therefore read again for up to a twentieth of a second, all together.
    """
    wanted, found = f"{variable}\0".encode(), set()
    unread = list(Path("/proc").glob("[0-9]*"))
    for _ in range(_LOOKS):
        environments = {folder: _environment(folder) for folder in unread}
        found |= {
            int(folder.name)
            for folder, one in environments.items()
            if one and wanted in one + b"\0"
        }
        unread = [folder for folder, one in environments.items() if one == b""]
        if not unread:
            break
        time.sleep(_PAUSE_S)
    return found - {os.getpid()}


def _environment(folder: Path) -> bytes | None:
    """Return a process's environment.

    Return b"" if it has none at the moment, and None if it cannot be read: the process has ended,
    belongs to another user, or is a kernel thread.
    """
    try:
        os.readlink(folder / "exe")
        return (folder / "environ").read_bytes()
    except ProcessLookupError:  # in the middle of an exec
        return b""
    except OSError:
        return None
