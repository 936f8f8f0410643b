"""The folder of this user's control sockets (standard library only)."""

from __future__ import annotations

import os
import socket
import stat
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path

RUNTIME = "SPECDIFF_RUNTIME_DIR"
_PATIENCE_S = 1.0


def runtime_folder() -> Path:
    """`$SPECDIFF_RUNTIME_DIR`, else `specdiff` under `$XDG_RUNTIME_DIR`, else `specdiff-<uid>` under the temporary folder; made
    if it is not there.

    Raises OSError where it is not ours alone: who can write into it could answer in our place.
    """
    told, session = os.environ.get(RUNTIME), os.environ.get("XDG_RUNTIME_DIR")
    if told:
        folder = Path(told)
    elif session and os.access(session, os.W_OK):
        folder = Path(session) / "specdiff"
    else:
        folder = Path(tempfile.gettempdir()) / f"specdiff-{os.geteuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    must_be_ours(folder)
    return folder


def must_be_ours(folder: Path) -> None:
    """Raises OSError where it is not a folder of ours alone, or none."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise OSError(
            f"{folder} must be a folder of user {os.geteuid()} alone (mode 700); it is of user {found.st_uid}, "
            f"mode {stat.S_IMODE(found.st_mode):o}. Mend that, or set {RUNTIME} to another"
        )


def folders(env: Mapping[str, str]) -> list[Path]:
    """Where a process with this environment may have its socket: where the first was not to be had, in a later one."""
    if env.get(RUNTIME):
        return [Path(env[RUNTIME])]
    own = f"specdiff-{os.geteuid()}"
    every = (("XDG_RUNTIME_DIR", "specdiff"), ("TMPDIR", own))
    return [Path(env[name], under) for name, under in every if env.get(name)] + [Path("/tmp", own)]


def socket_of(pid: int) -> Path:
    """Where the schedulers of process `pid` are controlled. Raises OSError as `runtime_folder` does."""
    return runtime_folder() / f"{pid}.sock"


def is_same_user(connected: socket.socket) -> bool:
    """Whether the other end is our user's, or root's. The folder keeps others out; this is the second lock on the same door."""
    size = struct.calcsize("3i")
    found = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _, uid, _ = struct.unpack("3i", found)
    return uid in (os.geteuid(), 0)


def is_dead(path: Path) -> bool:
    """Whether nobody listens on this socket; one that cannot be tried may be somebody's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trying:
        trying.settimeout(_PATIENCE_S)
        try:
            trying.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
