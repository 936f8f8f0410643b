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
# The path of a socket has 108 bytes, of which the last is 0 (`sun_path`, see unix(7)). The longest
# name in the folder is that of the highest pid that Linux allows.
_LONGEST = 107 - len("/4194304.sock")


def runtime_folder() -> Path:
    """Return the folder for control sockets, and create it if needed.

    It is `$SPECDIFF_RUNTIME_DIR`, else `specdiff` in `$XDG_RUNTIME_DIR`, else `specdiff-<uid>` in
    the temporary folder. A `$XDG_RUNTIME_DIR` whose name is too long for a socket is left out.

    Raises OSError if the name of the folder is too long for a socket, or if other users can access
    it: a user who can write into it could put up a socket and answer requests in our place.
    """
    configured, session = os.environ.get(RUNTIME), os.environ.get("XDG_RUNTIME_DIR")
    in_session = Path(session or "", "specdiff")
    if configured:
        folder = Path(configured)
    elif session and os.access(session, os.W_OK) and _num_bytes(in_session) <= _LONGEST:
        folder = in_session
    else:
        folder = Path(tempfile.gettempdir()) / f"specdiff-{os.geteuid()}"
    if _num_bytes(folder) > _LONGEST:
        raise OSError(
            f"{folder} is too long for the folder of a socket: {_num_bytes(folder)} bytes, expected at most {_LONGEST}. "
            f"Set {RUNTIME} to a shorter one, for the server and for `record --attach`"
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    must_be_ours(folder)
    return folder


def _num_bytes(folder: Path) -> int:
    return len(os.fsencode(folder.absolute()))


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
