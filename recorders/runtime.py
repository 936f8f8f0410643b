"""The folder of this user's control sockets, and checks on sockets (standard library only)."""

from __future__ import annotations

import os
import socket
import stat
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path

RUNTIME = "SPECDIFF_RUNTIME_DIR"
_TIMEOUT_S = 1.0


def runtime_folder() -> Path:
    """Return the folder for control sockets, and create it if needed.

    It is `$SPECDIFF_RUNTIME_DIR`, else `specdiff` in `$XDG_RUNTIME_DIR`, else `specdiff-<uid>` in
    the temporary folder.

    Raises OSError if other users can access it: a user who can write into it could put up a socket
    and answer requests in our place.
    """
    configured, session = os.environ.get(RUNTIME), os.environ.get("XDG_RUNTIME_DIR")
    if configured:
        folder = Path(configured)
    elif session and os.access(session, os.W_OK):
        folder = Path(session) / "specdiff"
    else:
        folder = Path(tempfile.gettempdir()) / f"specdiff-{os.geteuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    must_be_ours(folder)
    return folder


def must_be_ours(folder: Path) -> None:
    """Raises OSError if `folder` is not a folder, or is accessible to other users."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise OSError(
            f"{folder} must be a folder that only user {os.geteuid()} can access (mode 700), but it belongs to user "
            f"{found.st_uid} and has mode {stat.S_IMODE(found.st_mode):o}. Fix that, or set {RUNTIME} to another folder"
        )


def folders(env: Mapping[str, str]) -> list[Path]:
    """Return the folders where a process with this environment may have its socket.

    If it could not use the first folder, its socket is in a later one.
    """
    if env.get(RUNTIME):
        return [Path(env[RUNTIME])]
    own = f"specdiff-{os.geteuid()}"
    every = (("XDG_RUNTIME_DIR", "specdiff"), ("TMPDIR", own))
    return [Path(env[name], under) for name, under in every if env.get(name)] + [Path("/tmp", own)]


def socket_of(pid: int) -> Path:
    """Return the path of the control socket of process `pid`. Raises OSError like `runtime_folder`."""
    return runtime_folder() / f"{pid}.sock"


def is_same_user(connected: socket.socket) -> bool:
    """Whether the process at the other end runs as our user or as root.

    The folder's permissions already keep others out; this is a second check.
    """
    size = struct.calcsize("3i")
    found = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _, uid, _ = struct.unpack("3i", found)
    return uid in (os.geteuid(), 0)


def is_dead(path: Path) -> bool:
    """Whether no process listens on this socket. False if that cannot be determined."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_TIMEOUT_S)
        try:
            sock.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
