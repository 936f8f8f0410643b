"""Check that a file descriptor is still ours (standard library only).

A server may close all descriptors that it finds, and then open its own files under their numbers.
"""

from __future__ import annotations

import os
import socket

Identity = tuple[int, int]  # device and inode


def identity(fd: int) -> Identity:
    """Return the identity of an open file. Raises OSError if `fd` is not open."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def is_still(fd: int, known: Identity | None) -> bool:
    try:
        return identity(fd) == known
    except OSError:
        return False


class OurSocket:
    """A socket that can check whether its descriptor is still ours.

    If it is not, `close` leaves the descriptor alone.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._identity = identity(sock.fileno())

    def is_ours(self) -> bool:
        return is_still(self.sock.fileno(), self._identity)

    def close(self) -> None:
        if self.is_ours():
            self.sock.close()
        else:
            self.sock.detach()
