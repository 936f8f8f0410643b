"""The journal: an append-only file of checksummed records that survives a SIGKILL (standard library only).

    b"specdiff-journal 4\\n"  then, any number of times:  magic, type, length, crc32(type, length, payload), payload

A reader keeps every record up to the first one that is cut or damaged, and says where that was.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from .errors import RecordingError
from .schema import Kind

HEADER = b"specdiff-journal 4\n"
_MAGIC = b"\xa5SD\n"
_RECORD = struct.Struct("<4sBxxxII")


class Type(IntEnum):
    """Record types that are not events; events use their `Kind`, which stays below 100."""

    RUN = 100  # JSON: who records, see `run.py`
    REQUEST = 101  # JSON: one request, see `capture`; its number is its position among the REQUEST records
    STATS = 102  # JSON: drops, exceptions and overhead so far; the last one counts


@dataclass(frozen=True, slots=True)
class Record:
    type: int
    payload: bytes
    offset: int  # bytes into the file


@dataclass(frozen=True, slots=True)
class Damage:
    """Where a journal stops being readable, and why."""

    offset: int
    size: int
    why: str


@dataclass(frozen=True, slots=True)
class Scan:
    records: tuple[Record, ...]
    damage: Damage | None


def frame(type: Kind | Type, payload: bytes) -> bytes:
    """One record, ready to append."""
    head = struct.pack("<BI", type, len(payload))
    return _RECORD.pack(_MAGIC, type, len(payload), zlib.crc32(payload, zlib.crc32(head))) + payload


def scan(path: Path) -> Scan:
    """Read every sound record of a journal.

    Raises RecordingError when the file is not a journal at all, or one of another version.
    """
    data = path.read_bytes()
    if not data.startswith(HEADER):
        raise RecordingError(_not_a_journal(path, data))
    records, damage = [], None
    for item in _records(data):
        if isinstance(item, Damage):
            damage = item
        else:
            records.append(item)
    return Scan(tuple(records), damage)


def _records(data: bytes) -> Iterator[Record | Damage]:
    at, size = len(HEADER), len(data)
    while at < size:
        if size - at < _RECORD.size:
            yield Damage(at, size, "the file ends inside a record's header")
            return
        magic, type, length, crc = _RECORD.unpack_from(data, at)
        body = at + _RECORD.size
        if magic != _MAGIC:
            yield Damage(at, size, "no record starts here")
            return
        if length > size - body:
            yield Damage(at, size, f"the file ends inside a record of {length} bytes")
            return
        payload = data[body : body + length]
        if zlib.crc32(payload, zlib.crc32(struct.pack("<BI", type, length))) != crc:
            yield Damage(at, size, "the checksum of a record does not match")
            return
        yield Record(type, payload, at)
        at = body + length


def _not_a_journal(path: Path, data: bytes) -> str:
    found = data[: len(HEADER)]
    if found.startswith(b"specdiff-journal "):
        version = found.split(b" ")[1].split(b"\n")[0].decode("ascii", "replace")
        return f"{path}: a journal of version {version}; this specdiff reads version 4. Use the specdiff that recorded it."
    if HEADER.startswith(found):
        return f"{path}: the journal ends inside its header ({len(data)} bytes): nothing was recorded into it."
    return f"{path}: not a specdiff journal (it starts with {found[:12]!r})."
