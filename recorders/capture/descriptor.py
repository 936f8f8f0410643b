"""Descriptors that are ours: a server that closes every one it finds may have files of its own under their numbers (standard
library only)."""

from __future__ import annotations

import os
import socket

Identity = tuple[int, int]  # device and inode


def identity(fd: int) -> Identity:
    """Raises OSError where `fd` is none."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def is_still(fd: int, known: Identity | None) -> bool:
    try:
        return identity(fd) == known
    except OSError:
        return False


class OurSocket:
    """A socket for as long as its descriptor is ours: nothing is read from, written to or closed under its number after that."""

    def __init__(self, made: socket.socket) -> None:
        self.made = made
        self._identity = identity(made.fileno())

    def is_ours(self) -> bool:
        return is_still(self.made.fileno(), self._identity)

    def close(self) -> None:
        if self.is_ours():
            self.made.close()
        else:
            self.made.detach()
