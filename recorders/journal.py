"""The journal: an append-only file of checksummed records that survives a SIGKILL (standard library only).

    b"specdiff-journal 7\\n"  then, any number of times:  magic, type, length, checksum, payload

The checksum is a CRC-32 of type, length and payload. It continues from the checksum of the
preceding record (0 for the first), so a record that is lost, duplicated, moved or from another
journal breaks the chain.

A reader keeps every record before the first one that is truncated, damaged or out of place, and
reports where that was.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path

from .errors import RecordingError
from .schema import VERSION, Kind

HEADER = b"specdiff-journal 7\n"
# The headers of the journals that can be read. The value is the version of the recording format
# whose columns the events have.
HEADERS = {
    b"specdiff-journal 4\n": 3,
    b"specdiff-journal 5\n": 4,
    b"specdiff-journal 6\n": 4,
    HEADER: VERSION,
}
PARTIAL = ".partial"  # suffix of a ring's copy until it is complete
_SAYS_NEXT = 6  # from this version on, a ring's segment names the segment that continues it
_SEGMENT = re.compile(r"\d{8,}\.segment")
_MAGIC = b"\xa5SD\n"
_RECORD = struct.Struct("<4sBxxxII")
_HEAD = slice(4, 12)  # the type and length of a record, which the checksum covers
_CHECKSUM = struct.Struct("<I")


class Type(IntEnum):
    """Record types that are not events; events use their `Kind`, which stays below 100."""

    RUN = 100  # JSON: the run attributes, see `run.py`
    # JSON: one request and its number, `qid`; see `capture`.
    REQUEST = 101
    STATS = 102  # JSON: drops, exceptions and overhead so far; the last STATS record is valid
    NEXT = 103  # the last record of a ring's segment: the number of the segment that continues it


@dataclass(frozen=True, slots=True)
class Record:
    """One record. `data` is the whole file, shared by all records, so that payloads are not copied."""

    type: int
    offset: int  # in bytes, from the start of the file
    length: int  # of the payload, in bytes
    data: bytes = field(repr=False)

    @property
    def payload(self) -> bytes:
        body = self.offset + _RECORD.size
        return self.data[body : body + self.length]


@dataclass(frozen=True, slots=True)
class Damage:
    """Where a journal stops being readable, and why."""

    offset: int
    size: int
    why: str
    more: (
        bool  # records seem to follow, so it is not the torn end that a kill or a full disk leaves
    )


@dataclass(frozen=True, slots=True)
class Scan:
    records: tuple[Record, ...]
    damage: Damage | None
    format: int = VERSION  # recording format version: which columns the events have
    version: int = _SAYS_NEXT  # journal version

    @property
    def goes_on(self) -> bool:
        """Whether more records seem to follow the damage."""
        return self.damage is not None and self.damage.more


def frame(type: Kind | Type, payload: bytes, before: int = 0) -> bytes:
    """Return one record, ready to append. `before` is the checksum of the record before it."""
    head = _RECORD.pack(_MAGIC, type, len(payload), 0)
    checksum = zlib.crc32(payload, zlib.crc32(head[_HEAD], before))
    return head[: _HEAD.stop] + _CHECKSUM.pack(checksum) + payload


def frames(records: Iterable[tuple[Kind | Type, bytes]]) -> bytes:
    """Return the records of a journal as contiguous bytes."""
    data, before = bytearray(), 0
    for type, payload in records:
        framed = frame(type, payload, before)
        before = checksum_of(framed)
        data += framed
    return bytes(data)


def checksum_of(framed: bytes) -> int:
    """Return the checksum of a framed record (`before` of the next one), or 0 for empty bytes."""
    return _CHECKSUM.unpack_from(framed, _HEAD.stop)[0] if framed else 0


def scan(path: Path) -> Scan:
    """Read every record of a journal up to its first damage.

    `path` is a file, or the folder of a ring's segments (see `capture/ring.py`).

    Raises RecordingError if the file is not a journal, or is a journal of an unknown version.
    """
    if not path.is_dir():
        return _scan_file(path)
    records: list[Record] = []
    format, before = VERSION, None
    segments = sorted(one for one in path.iterdir() if _SEGMENT.fullmatch(one.name))
    for segment in segments:
        if before is not None and _is_only_a_header(segment):
            break  # the process was killed while it began this segment
        found = _scan_file(segment)
        format = found.format  # the same for all segments: one process wrote them
        goes_on = before is not None and _goes_on(before, segment)
        records += _after_head(found.records) if goes_on else found.records
        if found.damage is not None:
            more = found.goes_on or segment != segments[-1]
            return Scan(_events(records), replace(found.damage, more=more), format)
        before = found
    return Scan(_events(records), None, format)


def _is_only_a_header(segment: Path) -> bool:
    begins = segment.read_bytes()[: len(HEADER) + 1]
    return any(header.startswith(begins) for header in HEADERS)


def _goes_on(before: Scan, segment: Path) -> bool:
    """Whether `segment` continues the one before it without a gap.

    Journals up to version 5 do not record this; for them it is assumed.
    """
    last = before.records[-1] if before.records else None
    if last is None or last.type != Type.NEXT:
        return before.version < _SAYS_NEXT
    return last.payload == next_number(int(segment.stem))


def next_number(number: int) -> bytes:
    """Return the payload of a NEXT record."""
    return number.to_bytes(4, "little")


def _events(records: Iterable[Record]) -> tuple[Record, ...]:
    return tuple(record for record in records if record.type != Type.NEXT)


def _after_head(records: tuple[Record, ...]) -> Iterator[Record]:
    """Yield a segment's records without the GAP in its head.

    That GAP stands for the events before the segment, which are present in this case. The head
    also repeats REQUEST records; the caller recognizes these by their numbers.
    """
    in_head = True
    for record in records:
        if not (in_head and record.type == Kind.GAP):
            yield record
        in_head &= record.type in (Type.RUN, Type.REQUEST)


def _scan_file(path: Path) -> Scan:
    data = path.read_bytes()
    header = data[: len(HEADER)]
    if header not in HEADERS:
        raise RecordingError(_not_a_journal(path, data))
    records: list[Record] = []
    version = _version(header)
    at, before = len(header), 0
    while at < len(data):
        record = _record(data, at, before)
        if isinstance(record, str):
            more = data.find(_MAGIC, at + 1) >= 0
            damage = Damage(at, len(data), record, more)
            return Scan(tuple(records), damage, HEADERS[header], version)
        records.append(record)
        before = checksum_of(data[at : at + _RECORD.size])
        at += _RECORD.size + record.length
    return Scan(tuple(records), None, HEADERS[header], version)


def _version(header: bytes) -> int:
    return int(header.split()[1])


def _record(data: bytes, at: int, before: int) -> Record | str:
    """Return the record at `at`, or a sentence saying what is damaged. `before` is as in `frame`."""
    body = at + _RECORD.size
    if len(data) < body:
        return "the file ends inside a record's header"
    magic, type, length, checksum = _RECORD.unpack_from(data, at)
    if magic != _MAGIC:
        return "no record starts here"
    if length > len(data) - body:
        return f"the file ends inside a record of {length} bytes"
    payload = data[body : body + length]
    if zlib.crc32(payload, zlib.crc32(data[at:body][_HEAD], before)) != checksum:
        return "the checksum of a record does not match"
    return Record(type, at, length, data)


def _not_a_journal(path: Path, data: bytes) -> str:
    found = data[: len(HEADER)]
    if found.startswith(b"specdiff-journal "):
        version = found.split(b" ")[1].split(b"\n")[0].decode("ascii", "replace")
        known = [_version(header) for header in HEADERS]
        return (
            f"{path}: a journal of version {version}; this specdiff reads versions {min(known)} to {max(known)}. "
            "Use the specdiff release that recorded it."
        )
    if any(header.startswith(found) for header in HEADERS):
        return f"{path}: the journal ends inside its header ({len(data)} bytes): nothing was recorded into it."
    return f"{path}: not a specdiff journal (it starts with {found[:12]!r})."
