"""A recording in memory: its tables as columns, and the structural rules that it must obey."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from . import schema
from .derived import Derived
from .errors import RecordingError
from .run import Run, Stats
from .schema import EVENT_TABLES, NONE64, ROW_TABLES, Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .schema import I32, I64


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """Everything that one scheduler process did and computed, in order.

    `hdf5.load` and `build.build` return one.
    """

    run: Run
    stats: Stats | None  # None: the process died before it wrote any
    damage: str | None  # what was lost at the end of the journal
    derived: tuple[Derived, ...]  # what was done to it since; empty: it is as recorded
    rids: tuple[str, ...]  # by qid
    details: tuple[str, ...]  # by qid: the request's stop conditions and other details, as JSON
    events: schema.Events
    requests: schema.Requests
    arrives: schema.Arrives
    extends: schema.Extends
    extend_rows: schema.ExtendRows
    prepares: schema.Prepares
    prepare_rows: schema.PrepareRows
    launches: schema.Launches
    launch_rows: schema.LaunchRows
    results: schema.Results
    result_rows: schema.ResultRows
    filters: schema.Filters
    filter_rows: schema.FilterRows
    merges: schema.Merges
    merge_rows: schema.MergeRows
    retracts: schema.Retracts
    aborts: schema.Aborts
    finishes: schema.Finishes
    releases: schema.Releases
    saves: schema.Saves
    restores: schema.Restores
    sents: schema.Sents
    seeds: schema.Seeds
    seed_rows: schema.SeedRows
    controls: schema.Controls
    spans: schema.Spans
    gaps: schema.Gaps
    tokens: I32  # next_token_ids of all results, concatenated, padded to the stride
    # (rows, layers, topk), unsigned: the rows of all finishes, concatenated
    experts: NDArray[Any]
    indexer: NDArray[Any]
    # The format version of its contents. It can be lower than that of its file: a file made from
    # an older recording still lacks what the newer versions added.
    version: int = schema.VERSION

    def __post_init__(self) -> None:
        check(self)

    @property
    def has_every_request(self) -> bool:
        """Whether no requests were left out.

        If some were, the server's sums over a batch include requests that are not in this recording.
        """
        return not any(step.requests_left_out for step in self.derived)

    @property
    def tokens_replaced(self) -> str | None:
        """A phrase saying what replaced the token ids; None if they are the server's own."""
        found = (step.how for step in self.derived if step.tokens_replaced)
        return next((f"replaced by {how}" for how in found), None)

    @property
    def rows_replaced(self) -> str | None:
        """A phrase saying what replaced or removed the contents of routed rows; None if nothing did."""
        words = {"redact": "replaced by redact", "shrink": "left out by shrink"}
        return next((words[step.how] for step in self.derived if step.how in words), None)

    def event_table(self, kind: Kind) -> Any:
        """Return the event table of a kind (`Kind.PREPARE` -> `prepares`)."""
        return getattr(self, EVENT_TABLES[kind].__name__.lower())

    def row_table(self, kind: Kind) -> Any:
        """Return the row table of a kind (`Kind.PREPARE` -> `prepare_rows`)."""
        return getattr(self, f"{kind.name.lower()}_rows")

    def event_of(self, kind: Kind) -> I64:
        """Return, for every row of the kind's event table, its position in the event order."""
        return np.flatnonzero(self.events.kind == kind)

    @property
    def breaks(self) -> I64:
        """Positions of the gaps and seeds in the event order (see `seeds.py`).

        After one of them, results of earlier launches may be missing.
        """
        return np.flatnonzero(np.isin(self.events.kind, (Kind.GAP, Kind.SEED)))

    @property
    def outputs_before_verify(self) -> int:
        """If a request has no more outputs than this at an extend, it has seen no verify.

        The value is 1 on the decode side of a disaggregated server, whose first token comes from
        the other side, and 0 elsewhere. It is also 0 if the recording has a gap: then that one
        token might come from a step that the gap hides.
        """
        return 1 if self.run.decode_side and not len(self.gaps.dropped) else 0

    @property
    def result_width(self) -> I64:
        """Per result: the number of tokens of each of its requests, padding included.

        It is 0 if unknown: the result has no rows, or its tokens cannot be divided evenly among them.
        """
        sizes = np.maximum(self.results.num_rows, 1)
        width, rest = np.divmod(self.results.num_tokens, sizes)
        return np.where((rest == 0) & (self.results.num_rows > 0), width, 0)

    def owner(self, kind: Kind) -> I64:
        """Return, for every row of the kind's row table, the row of the event table that owns it."""
        counts = self.event_table(kind).num_rows
        return np.repeat(np.arange(len(counts)), counts)


TABLE_NAMES: dict[str, type] = {
    "events": schema.Events,
    "requests": schema.Requests,
    **{table.__name__.lower(): table for table in EVENT_TABLES.values()},
    **{f"{kind.name.lower()}_rows": table for kind, table in ROW_TABLES.items()},
}


def row_starts(num_rows: I64) -> I64:
    """Return the index at which each event's rows begin (the exclusive running sum)."""
    return np.cumsum(num_rows) - num_rows


def columns(table: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    for field in fields(table):
        yield field.name, getattr(table, field.name)


def dtype_of(table: type) -> type[np.integer[Any]]:
    """Return the dtype of a table's columns: int32 for row tables, int64 for all others."""
    return np.int32 if table in ROW_TABLES.values() else np.int64


def check(recording: Recording) -> None:
    """Raise RecordingError for the first structural rule that is broken, naming table and numbers."""
    _check_lengths(recording)
    _check_spine(recording)
    _check_rows(recording)
    _check_qids(recording)
    _check_launches(recording)


def _require(holds: bool | np.bool_, table: str, message: str) -> None:
    if not holds:
        raise RecordingError(f"{table}: {message}. The recording is inconsistent: record again")


def _check_lengths(recording: Recording) -> None:
    for name in TABLE_NAMES:
        lengths = {len(values) for _, values in columns(getattr(recording, name))}
        _require(len(lengths) == 1, name, f"columns have different lengths {sorted(lengths)}")
    requests = len(recording.requests.origin_len)
    for name, size in (("rids", len(recording.rids)), ("details", len(recording.details))):
        _require(size == requests, name, f"{size} entries for {requests} requests")


def _check_spine(recording: Recording) -> None:
    kinds = recording.events.kind
    known = np.isin(kinds, [int(kind) for kind in EVENT_TABLES])
    _require(known.all(), "events", f"unknown event kinds {np.unique(kinds[~known])[:5].tolist()}")
    for kind, table in EVENT_TABLES.items():
        refs = recording.events.ref[kinds == kind]
        size = len(next(columns(recording.event_table(kind)))[1])
        name = table.__name__.lower()
        _require(len(refs) == size, name, f"{size} rows, but {len(refs)} events refer to it")
        _require((refs == np.arange(size)).all(), name, "events refer to its rows out of order")


def _check_rows(recording: Recording) -> None:
    for kind in ROW_TABLES:
        counts = recording.event_table(kind).num_rows
        size = len(recording.row_table(kind).qid)
        name = f"{kind.name.lower()}_rows"
        _require((counts >= 0).all(), name, "a negative row count")
        _require(counts.sum() == size, name, f"{size} rows, but its events own {counts.sum()}")
    finishes = recording.finishes
    for name, announced in (
        ("tokens", recording.results.num_tokens),
        ("experts", finishes.experts_stored),
        ("indexer", finishes.indexer_stored),
    ):
        size = len(getattr(recording, name))
        _require((announced >= 0).all(), name, "a negative count")
        _require(
            announced.sum() == size, name, f"{size} rows, but its events own {announced.sum()}"
        )


def _check_qids(recording: Recording) -> None:
    requests = len(recording.rids)
    for name in TABLE_NAMES:
        qid = getattr(getattr(recording, name), "qid", None)
        if qid is not None:
            inside = (qid >= 0) & (qid < requests)
            _require(inside.all(), name, f"a request number outside 0..{requests - 1}")


def _check_launches(recording: Recording) -> None:
    launches = recording.launches.launch
    _require((np.diff(launches) > 0).all(), "launches", "launch numbers do not increase")
    answered = recording.results.launch
    known = answered[answered != NONE64]
    _require(np.isin(known, launches).all(), "results", "a result for a launch that does not exist")
    _require(len(np.unique(known)) == len(known), "results", "two results for one launch")
