"""Cut a recording down to fewer requests and events; every value that remains is as recorded.

Only row counts and request numbers are adapted to what remains. Values of whole batches that no
longer hold (the server's sums and its batch-level count) become absent; they are not recomputed.
A GAP marks every place where events of a kept request were left out, including the head and the
tail, just as it does where the recorder drops events.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from . import schema
from .composition import members_before
from .derived import Derived
from .recording import Recording, columns
from .schema import EVENT_TABLES, NONE64, ROW_TABLES, Kind
from .slices import kept_tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .schema import I64

    Mask = NDArray[np.bool_]

# By table: the columns that the server computed for a whole batch.
_OF_BATCHES = {
    "extends": ("seq_lens_sum",),
    "prepares": ("seq_lens_sum_before", "seq_lens_sum_after", "device_sum"),
    "launches": ("seq_lens_sum_entry", "seq_lens_sum"),
    "results": ("batch_accepted_drafts",),
    "filters": ("seq_lens_sum_before", "seq_lens_sum_after", "device_sum"),
    "merges": (
        "seq_lens_sum_before",
        "other_seq_lens_sum",
        "seq_lens_sum_after",
        "device_sum",
    ),
}


_SPLIT_OFFSET = (
    1 << 32
)  # added to batch and session numbers; far more than any recording has of either


class Cutter:
    """Cuts one recording, any number of times.

    `source` is the sha256 of the file that the recording was read from.
    """

    def __init__(self, recording: Recording, source: str) -> None:
        self.recording, self._source = recording, source
        self._members = members_before(recording)
        self._occupied = self._members[Kind.MERGE].count(_everybody(recording)) > 0
        self._rows = {kind: _Rows(recording, kind) for kind in ROW_TABLES}

    def concerned(self, requests: Mask) -> Mask:
        """Return a mask of the events that concern any of `requests` (bool, by qid).

        A GAP concerns every request.
        """
        recording = self.recording
        concerned = np.ones(len(recording.events.kind), dtype=bool)
        if requests.all():
            return concerned
        for kind in EVENT_TABLES:
            if kind in ROW_TABLES:
                concerned[recording.event_of(kind)] = self._rows[kind].count(requests) > 0
            elif hasattr(recording.event_table(kind), "qid"):
                mine = requests[recording.event_table(kind).qid]
                concerned[recording.event_of(kind)] = mine
        concerned[recording.event_of(Kind.FILTER)] |= self._before(Kind.FILTER, requests) > 0
        concerned[recording.event_of(Kind.MERGE)] &= self._joined(requests)
        return concerned

    def __call__(self, requests: Mask, events: Mask) -> Recording:
        """Return the recording with only `requests` (bool, by qid) and `events` (bool, by position).

        `derived` of the result gets an entry for the cut.
        """
        recording, whole = self.recording, bool(requests.all())
        concerned = self.concerned(requests)
        kept = concerned & events & (recording.events.kind != Kind.GAP)
        spine, gaps = _spine(recording, np.flatnonzero(concerned), kept)
        tables = {**self._tables(requests, kept), "events": spine, "gaps": gaps}
        if not whole:
            _without_sums(tables)
            left = kept[recording.event_of(Kind.FILTER)]
            size = np.where(
                self._members[Kind.FILTER].known, self._before(Kind.FILTER, requests), NONE64
            )
            tables["filters"] = replace(tables["filters"], size_before=size[left])
            self._split_histories(tables, requests, kept)
        return self._recording(tables, requests, kept)

    def _recording(self, tables: dict[str, Any], requests: Mask, kept: Mask) -> Recording:
        recording = self.recording
        finishes = kept[recording.event_of(Kind.FINISH)]
        tokens, counts = kept_tokens(recording, requests, kept[recording.event_of(Kind.RESULT)])
        tables["results"] = replace(_paired(tables), num_tokens=counts)
        step = Derived(
            how="cut",
            source=self._source,
            description=f"{requests.sum()} of {len(requests)} requests and {kept.sum()} of {len(kept)} events kept",
            requests_left_out=len(requests) - int(requests.sum()),
            tokens_replaced=False,
        )
        return replace(
            recording,
            derived=(*recording.derived, step),
            rids=tuple(np.array(recording.rids, dtype=object)[requests]),
            details=tuple(np.array(recording.details, dtype=object)[requests]),
            requests=_masked(recording.requests, requests),
            tokens=recording.tokens[tokens],
            experts=recording.experts[np.repeat(finishes, recording.finishes.experts_stored)],
            indexer=recording.indexer[np.repeat(finishes, recording.finishes.indexer_stored)],
            **tables,
        )

    def _tables(self, requests: Mask, kept: Mask) -> dict[str, Any]:
        """Return every event and row table without what is left out, requests and rows renumbered."""
        number = np.cumsum(requests) - 1
        tables: dict[str, Any] = {}
        for kind, cls in EVENT_TABLES.items():
            mine = kept[self.recording.event_of(kind)]
            table = _masked(self.recording.event_table(kind), mine)
            if kind in ROW_TABLES:
                rows = self._rows[kind]
                table = replace(table, num_rows=rows.count(requests)[mine])
                left = _masked(rows.table, mine[rows.owner] & requests[rows.table.qid])
                tables[f"{kind.name.lower()}_rows"] = _renumbered(left, number)
            tables[cls.__name__.lower()] = _renumbered(table, number)
        return tables

    def _before(self, kind: Kind, requests: Mask) -> I64:
        return self._members[kind].count(requests)

    def _joined(self, requests: Mask) -> Mask:
        """Return a mask of the merges that brought one of these requests into a batch.

        A merge does not concern requests that were in the batch before it. If the members before
        a merge are unknown, it is included.
        """
        before = self._before(Kind.MERGE, requests)
        joined: Mask = self._rows[Kind.MERGE].count(requests) > before
        return joined | ~self._members[Kind.MERGE].known

    def _split_histories(self, tables: dict[str, Any], requests: Mask, kept: Mask) -> None:
        """Give a batch or session a new number from the point where part of its history is missing.

        - A batch that lost its last kept request was not empty on the server. What is merged into
          it later joins requests that are not in this recording.
        - After a turn that is left out, the recording lacks what the next turn of its session
          inherits.
        """
        recording = self.recording
        merges, saves = recording.merges, recording.saves
        left = (self._members[Kind.MERGE].count(requests) == 0) & self._occupied
        batches = _Split(merges.batch[left], recording.event_of(Kind.MERGE)[left])
        lost = ~requests[saves.qid]
        sessions = _Split(saves.session[lost], recording.event_of(Kind.SESSION_SAVE)[lost])
        for kind, cls in EVENT_TABLES.items():
            event = recording.event_of(kind)
            name, event = cls.__name__.lower(), event[kept[event]]
            for column, split in (("batch", batches), ("other", batches), ("session", sessions)):
                if hasattr(tables[name], column):
                    numbers = split(getattr(tables[name], column), event)
                    tables[name] = replace(tables[name], **{column: numbers})


@dataclass(frozen=True, slots=True, eq=False)
class _Split:
    """From event `since[i]` on, number `number[i]` counts as a different batch or session."""

    number: I64
    since: I64

    def __call__(self, numbers: I64, event: I64) -> I64:
        """Return `numbers`, used at `event`, with an offset for every split before that event."""
        _, name = np.unique(np.concatenate([self.number, numbers]), return_inverse=True)
        width = 1 + int(max(self.since.max(initial=0), event.max(initial=0)))
        size = len(self.number)
        splits = np.sort(name[:size] * width + self.since)  # by number, then by event
        first = name[size:] * width
        up_to_now = np.searchsorted(splits, first + event, side="right")
        numbered: I64 = numbers + (up_to_now - np.searchsorted(splits, first)) * _SPLIT_OFFSET
        return numbered


class _Rows:
    """The row table of a kind, with the event that owns each row."""

    def __init__(self, recording: Recording, kind: Kind) -> None:
        self.table, self.owner = recording.row_table(kind), recording.owner(kind)
        self._size = len(recording.event_table(kind).num_rows)

    def count(self, requests: Mask) -> I64:
        """Return, per event, how many of its rows belong to these requests."""
        mine = self.owner[requests[self.table.qid]]
        return np.bincount(mine, minlength=self._size).astype(np.int64)


def _spine(recording: Recording, concerned: I64, kept: Mask) -> tuple[schema.Events, schema.Gaps]:
    """Return the event order with one GAP for each run of left-out events.

    An existing GAP joins the run that it is part of, and its count is added to the run's.
    """
    stays = kept[concerned]
    begins = ~stays
    begins[1:] &= stays[:-1]
    at = concerned[stays | begins]
    left = stays[stays | begins]
    kind = np.where(left, recording.events.kind[at], int(Kind.GAP))
    ref = np.zeros_like(kind)
    for value in np.unique(kind):
        ref[kind == value] = np.arange(np.count_nonzero(kind == value))
    events = schema.Events(kind, ref, recording.events.iteration[at], recording.events.time_ns[at])
    lost = np.ones(len(recording.events.kind), dtype=np.int64)
    lost[recording.event_of(Kind.GAP)] = recording.gaps.dropped
    run = (np.cumsum(begins) - 1)[~stays]
    dropped = np.zeros(int(begins.sum()), dtype=np.int64)
    np.add.at(dropped, run, lost[concerned[~stays]])
    return events, schema.Gaps(dropped)


def _everybody(recording: Recording) -> Mask:
    return np.ones(len(recording.rids), dtype=bool)


def _without_sums(tables: dict[str, Any]) -> None:
    for name, absent in _OF_BATCHES.items():
        table = tables[name]
        nothing = np.full(len(table.num_rows), NONE64, dtype=np.int64)
        tables[name] = replace(table, **dict.fromkeys(absent, nothing))


def _paired(tables: dict[str, Any]) -> schema.Results:
    """Make `launch` absent for every result whose launch is left out."""
    results: schema.Results = tables["results"]
    there = np.isin(results.launch, tables["launches"].launch)
    return replace(results, launch=np.where(there, results.launch, NONE64))


def _masked(table: Any, mask: Mask) -> Any:
    return type(table)(*(values[mask] for _, values in columns(table)))


def _renumbered(table: Any, number: I64) -> Any:
    if not any(field.name == "qid" for field in dataclasses.fields(table)):
        return table
    return replace(table, qid=number[table.qid].astype(table.qid.dtype))
