"""A recording as plain Python lists: what an engine that takes one event at a time reads quickly."""

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
    """One table's columns as lists; `table.qid[row]`."""

    def __init__(self, table: Any) -> None:
        for column in fields(table):
            setattr(self, column.name, getattr(table, column.name).tolist())

    if TYPE_CHECKING:  # at run time it would make every column slower to read

        def __getattr__(self, name: str) -> list[int]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Tape:
    """`rows[kind][ref]`: the rows that an event owns. Many replays may read one tape; none writes to it."""

    recording: Recording
    events: dict[Kind, Table]
    rows_of: dict[Kind, Table]
    rows: dict[Kind, list[range]]
    requests: Table
    order: list[tuple[Kind, int]]  # the events: kind, and row of the kind's table
    _made: dict[Any, Any] = field(default_factory=dict)

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
        """What this function makes of the tape; made when first asked for, by whichever replay."""
        if make not in self._made:
            self._made[make] = make(self)
        made: T = self._made[make]
        return made

    def size(self, kind: Kind, *, per_batch: bool) -> int:
        """Rows of the kind's row table; of its event table where it has none, or where one value is the whole batch's."""
        if kind in self.rows_of and not per_batch:
            return len(self.rows_of[kind].qid)
        return int((self.recording.events.kind == kind).sum())

    def qids(self, kind: Kind, ref: int) -> list[int]:
        rows = self.rows[kind][ref]
        return self.rows_of[kind].qid[rows.start : rows.stop]


def tokens(tape: Tape) -> list[list[int]]:
    """Per result: its padded tokens."""
    counts, flat = tape.events[Kind.RESULT].num_tokens, tape.recording.tokens.tolist()
    ends = list(accumulate(counts))
    return [flat[end - n : end] for end, n in zip(ends, counts, strict=True)]


def widths(tape: Tape) -> list[int]:
    """Per result, as `Recording.result_width`."""
    made: list[int] = tape.recording.result_width.tolist()
    return made


def accepted(tape: Tape) -> dict[tuple[int, int], int]:
    """(launch, qid) -> tokens that its result accepted."""
    table, answered = tape.rows_of[Kind.RESULT], tape.events[Kind.RESULT].launch
    return {
        (launch, table.qid[row]): table.accept_len[row]
        for launch, rows in zip(answered, tape.rows[Kind.RESULT], strict=True)
        for row in rows
        if table.accept_len[row] != NONE32
    }


def present(value: int) -> int | None:
    """A value of the file, None where it is absent."""
    return None if value in (NONE32, NONE64) else value


def _ranges(recording: Recording, kind: Kind) -> list[range]:
    counts = recording.event_table(kind).num_rows
    starts = row_starts(counts).tolist()
    return [range(start, start + n) for start, n in zip(starts, counts.tolist(), strict=True)]
