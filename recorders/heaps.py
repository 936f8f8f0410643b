"""Check the global heaps of an HDF5 file, the only part of a recording without a checksum.

The first recordings have the texts of their attributes there. HDF5 2.0 hangs on a damaged heap
(free space given as an object of size 0), so the heap is checked here before HDF5 reads it.
"""

from __future__ import annotations

import struct

from .errors import COPY_AGAIN, RecordingError

_START = b"GCOL\x01\0\0\0"  # signature, version, reserved
_SIZE = struct.Struct("<Q")
_OBJECT = struct.Struct("<HHxxxxQ")  # number, references, size


def check_heaps(data: bytes) -> None:
    """Raises RecordingError if a heap's objects are not contiguous, or do not end inside the heap."""
    start = data.find(_START)
    while start >= 0:
        _check(data, start)
        start = data.find(_START, start + 1)


def _check(data: bytes, start: int) -> None:
    at = start + len(_START) + _SIZE.size
    end = start + _SIZE.unpack_from(data, at - _SIZE.size)[0] if at <= len(data) else at
    if not at < end <= len(data):
        raise RecordingError(_damaged(start))
    while at + _OBJECT.size <= end:
        number, _, size = _OBJECT.unpack_from(data, at)
        if number == 0 and size == end - at:  # the free space; its size includes its header
            return
        at += _OBJECT.size + (size + 7) // 8 * 8
        if number == 0 or at > end:
            raise RecordingError(_damaged(start))


def _damaged(start: int) -> str:
    return f"the texts at byte {start} are damaged: the file is corrupt. {COPY_AGAIN}"
