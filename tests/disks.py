"""Real disks to fill or take away, if mounting is allowed: tmpfs, and ext4 on a loop device."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
_FLUSH_FIRST = struct.pack("I", 0)


@contextmanager
def small_disk(where: Path, kib: int) -> Iterator[Path]:
    """Mount a tmpfs of `kib` KiB on `where`."""
    where.mkdir()
    with _mounted(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", str(where)], where):
        yield where


@contextmanager
def ext4(image: Path, where: Path) -> Iterator[Path]:
    """Mount the file `image` as a disk on `where`. The file is created if it does not exist."""
    if not image.exists():
        where.mkdir()
        with image.open("wb") as file:
            file.truncate(16 << 20)
        _may(["mkfs.ext4", "-q", str(image)])
    with _mounted(["mount", "-o", "loop", str(image), str(where)], where):
        yield where


def take_away(disk: Path) -> None:
    """Shut this ext4 down: every later read or write fails, as if the disk were gone."""
    handle = os.open(disk, os.O_RDONLY)
    try:
        fcntl.ioctl(handle, _EXT4_IOC_SHUTDOWN, _FLUSH_FIRST)
    finally:
        os.close(handle)


@contextmanager
def _mounted(command: list[str], where: Path) -> Iterator[None]:
    _may(command)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def _may(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip(f"cannot make a test disk: there is no {command[0]}")
    if done.returncode:
        pytest.skip(f"cannot make a test disk: {done.stderr.strip() or command}")
