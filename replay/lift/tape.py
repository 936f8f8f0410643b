"""A recording as plain Python lists, which an engine that handles one event at a time can read quickly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

from ...recorders.recording import Recording, row_starts
from ...recorders.schema import EVENT_TABLES, NONE32, NONE64, ROW_TABLES, Kind

T = TypeVar("T")
_KINDS = {int(kind): kind for kind in Kind}


class Table:
    """One table's columns as lists, read as `table.qid[row]`."""

    def __init__(self, table: Any) -> None:
        for column in fields(table):
            setattr(self, column.name, getattr(table, column.name).tolist())

    if TYPE_CHECKING:  # at run time, __getattr__ would make every column slower to read

        def __getattr__(self, name: str) -> list[int]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Tape:
    """A recording as lists. `rows[kind][ref]` is the range of rows that an event owns.

    Many replays may share one tape; none of them writes to it.
    """

    recording: Recording
    events: dict[Kind, Table]
    rows_of: dict[Kind, Table]
    rows: dict[Kind, list[range]]
    requests: Table
    order: list[tuple[Kind, int]]  # the events in order: kind, and row in the kind's table
    _computed: dict[Any, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, recording: Recording) -> Tape:
        return cls(
            recording,
            {kind: Table(recording.event_table(kind)) for kind in EVENT_TABLES},
            {kind: Table(recording.row_table(kind)) for kind in ROW_TABLES},
            {kind: _ranges(recording, kind) for kind in ROW_TABLES},
            Table(recording.requests),
            list(
                zip(
                    map(_KINDS.__getitem__, recording.events.kind.tolist()),
                    recording.events.ref.tolist(),
                    strict=True,
                )
            ),
        )

    def __iter__(self) -> Iterator[tuple[Kind, int]]:
        return iter(self.order)

    def once(self, make: Callable[[Tape], T]) -> T:
        """Return what this function computes from the tape.

        The first replay that needs it computes it for all.
        """
        if make not in self._computed:
            self._computed[make] = make(self)
        computed: T = self._computed[make]
        return computed

    def size(self, kind: Kind, *, per_batch: bool) -> int:
        """Return the number of rows of the kind's row table.

        Use its event table if it has no row table or if one value belongs to a whole batch.
        """
        if kind in self.rows_of and not per_batch:
            return len(self.rows_of[kind].qid)
        return int((self.recording.events.kind == kind).sum())

    def qids(self, kind: Kind, ref: int) -> list[int]:
        """Return the requests of an event."""
        rows = self.rows[kind][ref]
        return self.rows_of[kind].qid[rows.start : rows.stop]


def tokens(tape: Tape) -> list[list[int]]:
    """Return the padded tokens of each result."""
    counts, flat = tape.events[Kind.RESULT].num_tokens, tape.recording.tokens.tolist()
    ends = list(accumulate(counts))
    return [flat[end - n : end] for end, n in zip(ends, counts, strict=True)]


def widths(tape: Tape) -> list[int]:
    """Return the width of each result, as in `Recording.result_width`."""
    computed: list[int] = tape.recording.result_width.tolist()
    return computed


def accepted(tape: Tape) -> dict[tuple[int, int], int]:
    """Return (launch, qid) -> the number of tokens that its result accepted."""
    table, answered = tape.rows_of[Kind.RESULT], tape.events[Kind.RESULT].launch
    return {
        (launch, table.qid[row]): table.accept_len[row]
        for launch, rows in zip(answered, tape.rows[Kind.RESULT], strict=True)
        for row in rows
        if table.accept_len[row] != NONE32
    }


def present(value: int) -> int | None:
    """Return a value of the file, or None if it is absent."""
    return None if value in (NONE32, NONE64) else value


def _ranges(recording: Recording, kind: Kind) -> list[range]:
    counts = recording.event_table(kind).num_rows
    starts = row_starts(counts).tolist()
    return [range(start, start + n) for start, n in zip(starts, counts.tolist(), strict=True)]
