"""The journal: an append-only file of checksummed records that survives a SIGKILL (standard library only).

    b"specdiff-journal 7\\n"  then, any number of times:  magic, type, length, checksum, payload

The checksum is a CRC-32 of type, length and payload that goes on from the checksum of the record before (0 at the first):
a record that is lost, doubled, moved or another journal's breaks the chain.

A reader keeps every record up to the first one that is cut, damaged or out of place, and says where that was.
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
# How the journals begin that can be read, and the version of the recording format whose columns their events have.
HEADERS = {
    b"specdiff-journal 4\n": 3,
    b"specdiff-journal 5\n": 4,
    b"specdiff-journal 6\n": 4,
    HEADER: VERSION,
}
PARTIAL = ".partial"  # behind the name of a ring that is being copied
_SAYS_NEXT = 6  # the first version of which a ring's segments say which one goes on
_SEGMENT = re.compile(r"\d{8,}\.segment")
_MAGIC = b"\xa5SD\n"
_RECORD = struct.Struct("<4sBxxxII")
_HEAD = slice(4, 12)  # of a record: type and length, which the checksum covers
_CHECKSUM = struct.Struct("<I")


class Type(IntEnum):
    """Record types that are not events; events use their `Kind`, which stays below 100."""

    RUN = 100  # JSON: who records, see `run.py`
    REQUEST = 101  # JSON: one request, see `capture`; its number is its position among the REQUEST records
    STATS = 102  # JSON: drops, exceptions and overhead so far; the last one counts
    NEXT = (
        103  # of a ring: where this segment ended, and the number of the one that goes on from here
    )


@dataclass(frozen=True, slots=True)
class Record:
    """`data` is the whole file: of a long journal no second copy is held, record by record."""

    type: int
    offset: int  # bytes into the file
    length: int  # bytes of the payload
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
    more: bool  # records seem to follow: this is no torn end, as a kill or a full disk leaves it


@dataclass(frozen=True, slots=True)
class Scan:
    records: tuple[Record, ...]
    damage: Damage | None
    format: int = VERSION  # of the recording: which columns the events have
    version: int = _SAYS_NEXT  # of the journal

    @property
    def goes_on(self) -> bool:
        """Whether records seem to follow behind the damage."""
        return self.damage is not None and self.damage.more


def frame(type: Kind | Type, payload: bytes, before: int = 0) -> bytes:
    """One record, ready to append; `before` is the checksum of the record that it comes behind."""
    head = _RECORD.pack(_MAGIC, type, len(payload), 0)
    checksum = zlib.crc32(payload, zlib.crc32(head[_HEAD], before))
    return head[: _HEAD.stop] + _CHECKSUM.pack(checksum) + payload


def frames(records: Iterable[tuple[Kind | Type, bytes]]) -> bytes:
    """The records of a journal, one behind the other."""
    made, before = bytearray(), 0
    for type, payload in records:
        framed = frame(type, payload, before)
        before = checksum_of(framed)
        made += framed
    return bytes(made)


def checksum_of(framed: bytes) -> int:
    """The checksum of one framed record: the next one's `before`; 0 of none."""
    return _CHECKSUM.unpack_from(framed, _HEAD.stop)[0] if framed else 0


def scan(path: Path) -> Scan:
    """Read every sound record of a journal, be it a file or a ring's folder of segments (see `capture/ring.py`).

    Raises RecordingError when the file is not a journal at all, or one of another version.
    """
    if not path.is_dir():
        return _scan_file(path)
    records: list[Record] = []
    format, before = VERSION, None
    segments = sorted(one for one in path.iterdir() if _SEGMENT.fullmatch(one.name))
    for segment in segments:
        if before is not None and _is_only_a_header(segment):
            break  # killed while it turned over: nothing is in this one yet
        found = _scan_file(segment)
        format = found.format  # one process wrote them all
        goes_on = before is not None and _goes_on(before, segment)
        records += _behind_the_head(found.records) if goes_on else found.records
        if found.damage is not None:
            more = found.goes_on or segment != segments[-1]
            return Scan(_events(records), replace(found.damage, more=more), format)
        before = found
    return Scan(_events(records), None, format)


def _is_only_a_header(segment: Path) -> bool:
    begins = segment.read_bytes()[: len(HEADER) + 1]
    return any(header.startswith(begins) for header in HEADERS)


def _goes_on(before: Scan, segment: Path) -> bool:
    """Whether a segment begins where the one before has ended; journals up to version 5 did not say."""
    last = before.records[-1] if before.records else None
    if last is None or last.type != Type.NEXT:
        return before.version < _SAYS_NEXT
    return last.payload == next_number(int(segment.stem))


def next_number(number: int) -> bytes:
    """The payload of a NEXT."""
    return number.to_bytes(4, "little")


def _events(records: Iterable[Record]) -> tuple[Record, ...]:
    return tuple(record for record in records if record.type != Type.NEXT)


def _behind_the_head(records: tuple[Record, ...]) -> Iterator[Record]:
    """Without the gap that stands for what came before: that is here. Its requests are told apart by their numbers."""
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
    """The record at `at`, or why there is none; `before`: as in `frame`."""
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
            "Use the specdiff that recorded it."
        )
    if any(header.startswith(found) for header in HEADERS):
        return f"{path}: the journal ends inside its header ({len(data)} bytes): nothing was recorded into it."
    return f"{path}: not a specdiff journal (it starts with {found[:12]!r})."
