"""The byte layout of an event, packed by the capture side and unpacked by `build` (standard library
only)."""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

from .errors import RecordingError
from .schema import EVENT_TABLES, NONE32, NONE64, ROW_TABLES, VERSION, Kind, columns_in

_STAMP = struct.Struct("<QI")  # time_ns, iteration
_MAX_ITERATION = 0xFFFFFFFF
_TOPK = struct.Struct("<BHHI")  # itemsize, layers, topk, rows; the values follow

NUM_FIELDS = {kind: len(fields(table)) for kind, table in EVENT_TABLES.items()}
ROW_WIDTH = {kind: len(fields(table)) for kind, table in ROW_TABLES.items()}


@dataclass(frozen=True, slots=True)
class WireEvent:
    """One unpacked event.

    `rows` holds the columns of its row table, concatenated. Each column has one value per request.
    """

    kind: Kind
    time_ns: int
    iteration: int
    fields: array[int]
    rows: array[int]
    blob: bytes


@dataclass(frozen=True, slots=True)
class TopkRows:
    """Routed-expert or indexer rows as the server collected them.

    `data` is an array of unsigned integers of shape (rows, layers, topk).
    """

    itemsize: int
    layers: int
    topk: int
    rows: int
    data: bytes

    def __post_init__(self) -> None:
        if len(self.data) != self.itemsize * self.layers * self.topk * self.rows:
            raise RecordingError(
                f"routed rows have {len(self.data)} bytes, expected {self.rows} rows x {self.layers} layers x "
                f"{self.topk} experts x {self.itemsize} bytes"
            )


def pack_event(
    kind: Kind,
    time_ns: int,
    iteration: int,
    values: Sequence[int],
    columns: Sequence[Sequence[int]] = (),
    rest: Sequence[int] | bytes = b"",
) -> bytes:
    """Pack one event.

    `values` and `columns` are in the order of the fields of its event table and its row table.
    `rest` holds the tokens (int32) of a result, or the rows of a finish as `pack_topk` returns them.

    Raises ValueError if the number of values or columns is not that of the tables, and
    struct.error if a value does not fit.
    """
    num_rows = values[-1] if columns else 0
    if len(values) != NUM_FIELDS[kind] or len(columns) != ROW_WIDTH.get(kind, 0):
        raise ValueError(
            f"{kind.name}: got {len(values)} fields and {len(columns)} columns of rows, expected "
            f"{NUM_FIELDS[kind]} and {ROW_WIDTH.get(kind, 0)}"
        )
    packed = [_STAMP.pack(time_ns, iteration), _layout("q", len(values)).pack(*values)]
    pack = _layout("i", num_rows).pack
    packed += [pack(*column) for column in columns]
    packed.append(rest if isinstance(rest, bytes) else _layout("i", len(rest)).pack(*rest))
    return b"".join(packed)


def pack_gap(time_ns: int, iteration: object, dropped: int) -> bytes:
    """Pack a GAP. It can be packed at any iteration, even at one that makes all other events fail."""
    at = iteration & _MAX_ITERATION if isinstance(iteration, int) else 0
    return pack_event(Kind.GAP, time_ns, at, (dropped,))


@lru_cache(maxsize=1024)
def _layout(code: str, count: int) -> struct.Struct:
    """Return a cached layout. `count` is a batch size, a number of fields or a number of tokens, so
    the same few values recur."""
    return struct.Struct(f"<{count}{code}")


def unpack_event(kind: Kind, payload: bytes, version: int = VERSION) -> WireEvent:
    """The inverse of `pack_event`.

    `version` is the recording format version whose columns were packed. The values of columns that
    later versions added are absent.

    Raises RecordingError if the payload is too short for the rows that it declares.
    """
    held, held_rows = _held(kind, version)
    width = sum(held_rows)
    start, middle = _STAMP.size, _STAMP.size + 8 * sum(held)
    if len(payload) < middle:
        raise RecordingError(
            f"a {kind.name} record has {len(payload)} bytes, expected at least {middle}"
        )
    time_ns, iteration = _STAMP.unpack_from(payload)
    values = array("q", payload[start:middle])
    num_rows = values[-1] if width else 0
    end = middle + 4 * width * num_rows
    if num_rows < 0 or len(payload) < end:
        raise RecordingError(
            f"a {kind.name} record declares {num_rows} rows but has {len(payload)} bytes"
        )
    rows = array("i", payload[middle:end])
    if not all(held):
        values = _spread(values, held, 1, NONE64)
    if not all(held_rows):
        rows = _spread(rows, held_rows, num_rows, NONE32)
    return WireEvent(kind, time_ns, iteration, values, rows, payload[end:])


@lru_cache(maxsize=256)
def _held(kind: Kind, version: int) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    """Return, for each column of an event and of its rows, whether this format version had it."""
    event, rows = EVENT_TABLES[kind], ROW_TABLES.get(kind)
    return _columns(version, event.__name__.lower(), event), (
        _columns(version, f"{kind.name.lower()}_rows", rows) if rows else ()
    )


def _columns(version: int, name: str, table: type) -> tuple[bool, ...]:
    held = columns_in(version, name, table)
    return tuple(field.name in held for field in fields(table))


def _spread(values: array[int], held: tuple[bool, ...], size: int, absent: int) -> array[int]:
    """Insert columns of absent values for those that are not held. Each column has `size` values."""
    spread, at = array(values.typecode), 0
    for is_held in held:
        spread += values[at : at + size] if is_held else array(values.typecode, [absent] * size)
        at += size * is_held
    return spread


def pack_topk(rows: TopkRows | None) -> bytes:
    """Pack the rows of a finish. None (nothing collected, or nothing kept) packs as zero rows."""
    if rows is None:
        return _TOPK.pack(1, 0, 0, 0)
    return _TOPK.pack(rows.itemsize, rows.layers, rows.topk, rows.rows) + rows.data


def unpack_topk(blob: bytes) -> tuple[TopkRows, bytes]:
    """Unpack the rows at the start of `blob`; return them and the remaining bytes."""
    if len(blob) < _TOPK.size:
        raise RecordingError(
            f"a finish record has {len(blob)} bytes of rows, expected at least {_TOPK.size}"
        )
    itemsize, layers, topk, rows = _TOPK.unpack_from(blob)
    end = _TOPK.size + itemsize * layers * topk * rows
    return TopkRows(itemsize, layers, topk, rows, blob[_TOPK.size : end]), blob[end:]


if sys.byteorder != "little" or array("i").itemsize != 4 or array("q").itemsize != 8:
    raise ImportError(
        "specdiff's wire format needs a little-endian machine with 4-byte int and 8-byte long long"
    )
