"""Build a recording from a journal."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import journal, schema
from .cut import Cutter
from .derived import Derived
from .errors import RecordingError
from .recording import TABLE_NAMES, Recording, dtype_of
from .run import Run, Stats, run_from_json, stats_from_json
from .schema import EVENT_TABLES, NONE64, ROW_TABLES, Kind
from .seeds import Plan, plan
from .wire import ROW_WIDTH, TopkRows, WireEvent, unpack_event, unpack_topk


def build(path: Path) -> Recording:
    """Build the recording of a journal, reading up to its first damaged record, if it has one.

    `Recording.damage` describes that damage. Raises RecordingError if `path` is not a journal, or
    if it holds no run attributes, which means that nothing was recorded.
    """
    return _built(*_read(path), path)


def _read(path: Path) -> tuple[_Parts, str | None]:
    """Return the tables that the records fill, and a description of the damage or None.

    The journal's bytes are freed on return.
    """
    scan = journal.scan(path)
    seeds = plan(scan.records, scan.format)
    parts = _Parts(of_a_ring=path.is_dir(), seeds=seeds, format=scan.format)
    for place, record in enumerate(scan.records):
        try:
            parts.add(place, record)
        except RecordingError as error:
            raise RecordingError(f"{path}: {error} (the record at byte {record.offset})") from error
    damage = scan.damage
    lost = f"{damage.why} at byte {damage.offset} of {damage.size}" if damage else None
    return parts, lost


def _built(parts: _Parts, lost: str | None, path: Path) -> Recording:
    if parts.run is None:
        raise RecordingError(
            f"{path}: the journal has no run attributes: nothing was recorded into it."
        )
    recording = parts.finish(parts.run, lost)
    requests = parts.requests.values()
    chosen = np.array([not request.left_out for request in requests], dtype=bool)
    replaced = any(request.tokens_replaced for request in requests)
    if chosen.all() and not replaced:
        return recording
    return _chosen(recording, chosen, replaced, path)


def _chosen(
    recording: Recording, chosen: NDArray[np.bool_], tokens_replaced: bool, path: Path
) -> Recording:
    """Apply `--sample` and `--no-tokens` to a recording, and note in `derived` what was done.

    Only the sampled requests (`chosen`, by qid) are kept, each with complete books. For the other
    requests a journal holds only that they were in a batch (older journals hold their books, too).
    Values that the server computed for a whole batch become absent.
    """
    source = _sha256(path)
    if not chosen.all():
        cut = Cutter(recording, source)(chosen, np.ones(len(recording.events.kind), dtype=bool))
        kept = f"{chosen.sum()} of {len(chosen)} requests kept"
        step = dataclasses.replace(cut.derived[-1], how="sample", description=kept)
        recording = dataclasses.replace(cut, derived=(*cut.derived[:-1], step))
    if tokens_replaced:
        step = Derived(
            how="no-tokens",
            source=source,
            description="a token id that cannot end its request is a filler",
            requests_left_out=0,
            tokens_replaced=True,
        )
        recording = dataclasses.replace(recording, derived=(*recording.derived, step))
    return recording


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for name in sorted(path.iterdir()) if path.is_dir() else [path]:
        with name.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()


class _Request(NamedTuple):
    """What a recording keeps of a REQUEST record. `details` stays JSON text: parsed, it would take
    five times the memory."""

    rid: str
    details: str
    row: tuple[int, ...]  # its row of `Requests`
    left_out: bool
    tokens_replaced: bool


def _request(request: dict[str, Any]) -> _Request:
    values = (request.get(field.name) for field in fields(schema.Requests))
    return _Request(
        rid=str(request["rid"]),
        details=json.dumps(request, sort_keys=True),
        row=tuple(NONE64 if value is None else int(value) for value in values),
        left_out=bool(request.get("left_out")),
        tokens_replaced=bool(request.get("tokens_replaced")),
    )


@dataclass(slots=True)
class _Parts:
    """The bytes of every table so far, in journal order."""

    of_a_ring: bool  # every segment repeats the REQUEST records of the requests under way
    seeds: Plan
    format: int  # recording format version: which columns the events have
    run: Run | None = None
    stats: Stats | None = None
    requests: dict[int, _Request] = field(default_factory=dict)  # by the recorder's number
    spine: array[int] = field(default_factory=lambda: array("q"))
    tables: dict[str, bytearray] = field(
        default_factory=lambda: {name: bytearray() for name in TABLE_NAMES}
    )
    tokens: bytearray = field(default_factory=bytearray)
    experts: list[TopkRows] = field(default_factory=list)
    indexer: list[TopkRows] = field(default_factory=list)
    counts: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))

    def add(self, place: int, record: journal.Record) -> None:
        if record.type == journal.Type.RUN:
            self.run = run_from_json(record.payload)
        elif record.type == journal.Type.STATS:
            self.stats = stats_from_json(record.payload)
        elif record.type == journal.Type.REQUEST:
            request = json.loads(record.payload)
            # Not its position among these records: the recorder may have lost some of them.
            number = request.get("qid", len(self.requests))
            self.requests.setdefault(number, _request(request))
        elif record.type in EVENT_TABLES:
            event = unpack_event(Kind(record.type), record.payload, self.format)
            for one in self.seeds.events(place, event):
                self._add_event(one)
        else:
            raise RecordingError(f"a record of unknown type {record.type}")

    def _add_event(self, event: WireEvent) -> None:
        kind = event.kind
        self.spine.extend((int(kind), self.counts[kind], event.iteration, event.time_ns))
        self.counts[kind] += 1
        self.tables[EVENT_TABLES[kind].__name__.lower()] += event.fields.tobytes()
        if kind in ROW_TABLES:
            self.tables[f"{kind.name.lower()}_rows"] += _by_row(event)
        if kind is Kind.RESULT:
            self.tokens += event.blob
        elif kind is Kind.FINISH:
            experts, rest = unpack_topk(event.blob)
            indexer, _ = unpack_topk(rest)
            self.experts.append(experts)
            self.indexer.append(indexer)

    def finish(self, run: Run, damage: str | None) -> Recording:
        tables = {name: _table(cls, self.tables.pop(name)) for name, cls in TABLE_NAMES.items()}
        self._name_forgotten([one.qid for one in tables.values() if hasattr(one, "qid")])
        tables = {name: self._renumbered(table) for name, table in tables.items()}
        tables["results"] = _paired(tables["results"], tables["launches"])
        tables["events"] = _table(schema.Events, self.spine)
        requests = array("q", (value for one in self.requests.values() for value in one.row))
        tables["requests"] = _table(schema.Requests, requests)
        return Recording(
            run=run,
            stats=self.stats,
            damage=damage,
            derived=(),
            rids=tuple(request.rid for request in self.requests.values()),
            details=tuple(request.details for request in self.requests.values()),
            tokens=np.frombuffer(self.tokens, dtype=np.int32),
            experts=_topk_rows(self.experts, "routed experts"),
            indexer=_topk_rows(self.indexer, "indexer top-k"),
            **tables,
            version=self.format,
        )

    def _name_forgotten(self, qids: Iterable[NDArray[Any]]) -> None:
        """Add a placeholder request for every qid that an event names but no REQUEST record does.

        In a ring, a late result can name a request whose REQUEST record was in a deleted segment.
        Anywhere, the recorder may have failed to write a REQUEST record.
        """
        size = len(self.requests)
        if self._is_dense() and all(qid.max(initial=-1) < size for qid in qids):
            return  # the usual case, which is not to cost a sort of every column
        named = {int(qid) for column in qids for qid in np.unique(column)}
        left_out = self.of_a_ring and any(one.left_out for one in self.requests.values())
        for qid in sorted(named - self.requests.keys()):
            if qid >= 0:
                request = {"qid": qid, "rid": f"forgotten-{qid}", "left_out": left_out}
                self.requests[qid] = _request(request)

    def _is_dense(self) -> bool:
        """Whether the requests that are present have the numbers 0, 1, 2, ... in this order."""
        return all(qid == place for place, qid in enumerate(self.requests))

    def _renumbered(self, table: Any) -> Any:
        """Renumber the qids of a table by position among the requests that are present.

        A ring has lost earlier requests, so its qids have holes, and so have those of a recorder that
        failed to number a request. An unknown qid becomes -1.
        """
        if not hasattr(table, "qid") or self._is_dense():
            return table
        known = np.array(list(self.requests), dtype=np.int64)
        order = np.argsort(known)
        at = np.searchsorted(known, table.qid, sorter=order).clip(max=len(known) - 1)
        qid = np.where(known[order[at]] == table.qid, order[at], -1)
        return dataclasses.replace(table, qid=qid.astype(table.qid.dtype))


def _table(cls: type, data: bytearray | array[int]) -> Any:
    make: Callable[..., Any] = cls
    table = np.frombuffer(data, dtype=dtype_of(cls)).reshape(-1, len(fields(cls)))
    return make(*np.ascontiguousarray(table.T))


def _by_row(event: WireEvent) -> bytes:
    columns = np.frombuffer(event.rows, dtype=np.int32).reshape(ROW_WIDTH[event.kind], -1)
    return columns.T.tobytes()


def _paired(results: schema.Results, launches: schema.Launches) -> schema.Results:
    """Make `launch` absent for every result whose launch the recorder lost."""
    there = np.isin(results.launch, launches.launch)
    return dataclasses.replace(results, launch=np.where(there, results.launch, NONE64))


def _topk_rows(parts: Sequence[TopkRows], what: str) -> NDArray[Any]:
    shapes = {(part.layers, part.topk) for part in parts if part.rows}
    if len(shapes) > 1:
        raise RecordingError(
            f"{what} of different shapes (layers, topk) in one run: {sorted(shapes)}"
        )
    shape = next(iter(shapes), (0, 0))
    dtype = np.dtype(f"<u{max((part.itemsize for part in parts if part.rows), default=1)}")
    rows = [
        np.frombuffer(part.data, dtype=f"<u{part.itemsize}").reshape(-1, *shape)
        for part in parts
        if part.rows
    ]
    return np.concatenate(rows).astype(dtype) if rows else np.zeros((0, *shape), dtype)
