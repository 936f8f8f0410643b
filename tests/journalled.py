"""Turn a recording back into the journal that it was made from, in the order of the events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import copy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specdiff.recorders import journal
from specdiff.recorders.build import build
from specdiff.recorders.recording import TABLE_NAMES, Recording, columns
from specdiff.recorders.run import to_json
from specdiff.recorders.schema import EVENT_TABLES, NONE64, ROW_TABLES, Kind
from specdiff.recorders.wire import TopkRows, pack_event, pack_topk

Record = tuple[Kind | journal.Type, bytes]


def records_of(recording: Recording, times: int = 1) -> list[Record]:
    """Return the run, then every event. Each request comes before the first event that names it.

    `times`: repeat the same traffic that often, with new requests and launches.
    """
    records: list[Record] = [(journal.Type.RUN, to_json(recording.run).encode())]
    for time in range(times):
        records += _events(_later(recording, time), time * len(recording.rids))
    return records


def journal_of(recording: Recording) -> bytes:
    """Return the journal, with the final statistics, which say that the recorder was closed."""
    records = records_of(recording)
    if recording.stats is not None:
        records.append((journal.Type.STATS, to_json(recording.stats).encode()))
    return journal.HEADER + journal.frames(records)


def rebuilt(records: list[Record], folder: Path) -> Recording:
    """Build a recording from a journal of just these records."""
    path = folder / "expected.journal"
    path.write_bytes(journal.HEADER + journal.frames(records))
    return build(path)


def same_content(one: Recording, other: Recording) -> bool:
    """Compare all tables, the run and the requests, but not how the recording ended."""
    pairs = [
        (getattr(one, name), getattr(other, name)) for name in ("tokens", "experts", "indexer")
    ]
    for name in TABLE_NAMES:
        both = zip(columns(getattr(one, name)), columns(getattr(other, name)), strict=True)
        pairs += [(a, b) for (_, a), (_, b) in both]
    named = ("run", "rids", "details", "derived")
    return all(getattr(one, name) == getattr(other, name) for name in named) and all(
        a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs
    )


def _later(recording: Recording, time: int) -> Recording:
    """Return the recording with requests and launches numbered as in its `time`th repetition."""
    num_launches = int(recording.launches.launch.max(initial=0)) + 1
    by = {"qid": time * len(recording.rids), "launch": time * num_launches}
    changed: dict[str, Any] = {}
    for name in TABLE_NAMES:
        table = getattr(recording, name)
        moved = {
            column: np.where(values == NONE64, values, values + by[column]).astype(values.dtype)
            for column, values in columns(table)
            if column in by
        }
        changed[name] = replace(table, **moved)
    # `replace` would reject it, because alone it refers to requests that it does not have.
    later = copy(recording)
    for name, table in changed.items():
        object.__setattr__(later, name, table)
    return later


def _events(recording: Recording, first: int) -> Iterator[Record]:
    packers = {kind: _Table(recording, kind) for kind in EVENT_TABLES}
    events = recording.events
    announced = first
    for kind, ref, iteration, time_ns in zip(
        events.kind.tolist(),
        events.ref.tolist(),
        events.iteration.tolist(),
        events.time_ns.tolist(),
        strict=True,
    ):
        table = packers[Kind(kind)]
        while announced <= table.highest_qid(ref):
            request = json.loads(recording.details[announced - first])
            if "qid" in request:
                request["qid"] = announced
            yield journal.Type.REQUEST, json.dumps(request, sort_keys=True).encode()
            announced += 1
        values, by_column, rest = table.row(ref)
        yield Kind(kind), pack_event(Kind(kind), time_ns, iteration, values, by_column, rest)


class _Table:
    """The event rows of one kind, as they were packed."""

    def __init__(self, recording: Recording, kind: Kind) -> None:
        self.kind, self.recording = kind, recording
        table = recording.event_table(kind)
        self.names = [field.name for field in fields(table)]
        self.values = _rows(table)
        self.qids = getattr(table, "qid", None)
        if kind in ROW_TABLES:
            self.rows = _rows(recording.row_table(kind))
            self.row_ends = np.cumsum(table.num_rows).tolist()
            self.num_rows = table.num_rows.tolist()

    def highest_qid(self, ref: int) -> int:
        named = [] if self.qids is None else [int(self.qids[ref])]
        if self.kind in ROW_TABLES:
            named += self._rows(ref)[:, 0].tolist()
        return max(named, default=-1)

    def row(self, ref: int) -> tuple[list[int], list[list[int]], bytes]:
        by_column = self._rows(ref).T.tolist() if self.kind in ROW_TABLES else []
        return self.values[ref].tolist(), by_column, self._blob(ref)

    def _rows(self, ref: int) -> NDArray[Any]:
        end = self.row_ends[ref]
        return self.rows[end - self.num_rows[ref] : end]

    def _blob(self, ref: int) -> bytes:
        recording = self.recording
        if self.kind is Kind.RESULT:
            return _part(recording.tokens, recording.results.num_tokens, ref).tobytes()
        if self.kind is Kind.FINISH:
            finishes = recording.finishes
            experts = _part(recording.experts, finishes.experts_stored, ref)
            indexer = _part(recording.indexer, finishes.indexer_stored, ref)
            return _topk(experts) + _topk(indexer)
        return b""


def _rows(table: Any) -> NDArray[Any]:
    return np.stack([values for _, values in columns(table)], axis=1)


def _part(data: NDArray[Any], counts: NDArray[np.int64], ref: int) -> NDArray[Any]:
    end = int(counts[: ref + 1].sum())
    return data[end - int(counts[ref]) : end]


def _topk(rows: NDArray[Any]) -> bytes:
    if not len(rows):
        return pack_topk(None)
    num_rows, layers, topk = rows.shape
    return pack_topk(TopkRows(rows.dtype.itemsize, layers, topk, num_rows, rows.tobytes()))
