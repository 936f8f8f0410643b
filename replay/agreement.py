"""Compare the recordings of two ranks that received the same requests, event by event.

The ranks of an attention group each run a scheduler over the same messages, so they launch the same
batches and keep the same books. If they do not, the collectives of their forward passes pair up
different batches, which causes a hang or wrong tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..recorders.recording import Recording, columns, row_starts
from ..recorders.schema import EVENT_TABLES, NONE32, NONE64, ROW_TABLES, Kind
from .aligned import Aligned, RankDifference, align

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..recorders.schema import I64

# Numbers and bookkeeping of each recorder itself, plus the device sum, which is never read from a
# GPU.
_OWN = {
    "batch",
    "other",
    "launch",
    "session",
    "num_rows",
    "experts_stored",
    "indexer_stored",
    "experts_stored_from",
    "indexer_stored_from",
    "device_sum",
}
_WEIGHTS = {
    "weights",
    "weights_before",
}  # each recorder numbers these; the names come from the server


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was compared between two ranks, and where they first differ.

    After the first event that only one rank has, nothing is compared, because later events have no
    counterpart.
    """

    num_events: int
    num_values: int
    num_differed: int
    first: RankDifference | None
    first_of_request: (
        RankDifference | None
    )  # the first difference that concerns a request rather than a batch
    num_left: int  # events of the first recording that were not compared; `why` gives the reasons
    num_right: int  # the same for the second recording
    why: tuple[str, ...]

    def __post_init__(self) -> None:
        assert (self.first is None) == (self.num_differed == 0) and self.num_differed >= 0


def agree(left: Recording, right: Recording) -> Agreement:
    """Compare two recordings of one attention group over the steps that both of them saw."""
    aligned = align(left, right)
    found = [aligned.first_difference] if aligned.first_difference else []
    num_values = num_differed = len(found)
    for kind in EVENT_TABLES:
        for one in _of_kind(aligned, kind):
            num_values += one.num_values
            num_differed += one.num_differed
            found += [one.first] if one.first else []
    return Agreement(
        num_events=len(aligned.left),
        num_values=num_values,
        num_differed=num_differed,
        first=_first(found),
        first_of_request=_first([one for one in found if one.rid is not None]),
        num_left=aligned.num_left,
        num_right=aligned.num_right,
        why=aligned.why,
    )


def _first(found: list[RankDifference]) -> RankDifference | None:
    return min(found, key=lambda difference: difference.event, default=None)


@dataclass(frozen=True, slots=True)
class _Column:
    """How many values of one column were compared, how many differ, and the first difference."""

    num_values: int
    num_differed: int
    first: RankDifference | None


def _of_kind(aligned: Aligned, kind: Kind) -> Iterator[_Column]:
    """Compare every event of one kind: its columns, its rows and, for results, its tokens."""
    places = np.flatnonzero(aligned.left_recording.events.kind[aligned.left] == kind)
    if not len(places):
        return
    tables = [recording.event_table(kind) for recording in aligned.recordings]
    refs = [
        recording.events.ref[events[places]]
        for recording, events in zip(aligned.recordings, aligned.events, strict=True)
    ]
    qids = getattr(tables[0], "qid", None)
    yield from _columns(
        aligned, kind, tables, refs, places, None if qids is None else qids[refs[0]]
    )
    if kind not in ROW_TABLES:
        return
    counts = tables[0].num_rows[refs[0]]
    owner = np.repeat(places, counts)
    rows = [
        _ranges(row_starts(table.num_rows)[ref], counts)
        for table, ref in zip(tables, refs, strict=True)
    ]
    row_tables = [recording.row_table(kind) for recording in aligned.recordings]
    of_row = row_tables[0].qid[rows[0]]
    yield from _columns(aligned, kind, row_tables, rows, owner, of_row)
    replaced = any(recording.tokens_replaced for recording in aligned.recordings)
    if kind == Kind.RESULT and not replaced:
        yield _tokens(aligned, tables, refs, row_tables, rows, owner)


def _columns(
    aligned: Aligned,
    kind: Kind,
    tables: Sequence[Any],
    rows: list[I64],
    owner: I64,
    qids: I64 | None,
) -> Iterator[_Column]:
    """Compare every column of a table that both recorders read from the server.

    `owner` gives the aligned event that each row belongs to.
    """
    others = dict(columns(tables[1]))
    for name, values in columns(tables[0]):
        if name in _OWN:
            continue
        left, right = values[rows[0]], others[name][rows[1]]
        if name == "qid":
            right = aligned.as_left(right)
        elif name in _WEIGHTS:
            right = _as_left_weights(aligned, right)
        yield _column(aligned, kind, name, left, right, owner, qids)


def _as_left_weights(aligned: Aligned, numbers: NDArray[Any]) -> NDArray[Any]:
    """Translate the right recorder's weight numbers so that both sides can be compared.

    A name that the left recorder also has gets the left number. Other names get numbers past the
    left ones. `_namer` uses the same numbering.
    """
    left, right = (recording.run.weight_versions for recording in aligned.recordings)
    known = {name: number for number, name in reversed(list(enumerate(left)))}
    mine = np.array(
        [known.get(name, len(left) + i) for i, name in enumerate(right)], dtype=np.int64
    )
    named = (numbers >= 0) & (numbers < len(right))
    found = numbers.copy()
    found[named] = mine[numbers[named]]
    return found


def _namer(aligned: Aligned) -> Callable[[int], int | str | None]:
    """Return a function that turns a weight number into its name."""
    names = [name for one in aligned.recordings for name in one.run.weight_versions]
    return lambda number: names[number] if 0 <= number < len(names) else _number(number)


def _column(
    aligned: Aligned,
    kind: Kind,
    name: str,
    left: NDArray[Any],
    right: NDArray[Any],
    owner: I64,
    qids: I64 | None,
) -> _Column:
    """Compare one column of the paired rows and describe its first difference."""
    differs = np.flatnonzero(left != right)
    absent = NONE32 if left.dtype == np.int32 else NONE64
    num_values = int(np.count_nonzero((left != absent) | (right != absent)))
    if not len(differs):
        return _Column(num_values, 0, None)
    at = int(differs[0])
    recording = aligned.left_recording
    event = int(aligned.left[owner[at]])
    says = {"qid": aligned.rid, **dict.fromkeys(_WEIGHTS, _namer(aligned))}.get(name, _number)
    first = RankDifference(
        event=event,
        step=int(recording.events.iteration[event]),
        kind=kind,
        rid=None if qids is None else recording.rids[int(qids[at])],
        what="request" if name == "qid" else name,
        left=says(int(left[at])),
        right=says(int(right[at])),
    )
    return _Column(num_values, len(differs), first)


def _tokens(
    aligned: Aligned,
    tables: Sequence[Any],
    refs: list[I64],
    row_tables: Sequence[Any],
    rows: list[I64],
    owner: I64,
) -> _Column:
    """Compare the emitted tokens. The rest of a result is padding, which nothing reads."""
    sides = []
    for recording, table, ref, row_table, row in zip(
        aligned.recordings, tables, refs, row_tables, rows, strict=True
    ):
        sizes = table.num_rows[ref]
        begin = np.repeat(row_starts(table.num_tokens)[ref], sizes)
        place = _ranges(np.zeros(len(sizes), dtype=np.int64), sizes)
        each = np.repeat(recording.result_width[ref], sizes)
        emitted = row_table.num_emitted[row]
        sides.append((recording.tokens, begin + place * each, np.clip(emitted, 0, each)))
    (left, left_at, left_len), (right, right_at, right_len) = sides
    size = np.minimum(left_len, right_len).astype(np.int64)
    return _column(
        aligned,
        Kind.RESULT,
        "token",
        left[_ranges(left_at, size)],
        right[_ranges(right_at, size)],
        np.repeat(owner, size),
        np.repeat(row_tables[0].qid[rows[0]], size),
    )


def _ranges(starts: I64, counts: I64) -> I64:
    """Concatenate the ranges that begin at `starts[i]` and have `counts[i]` entries."""
    counts = counts.astype(np.int64)
    return np.repeat(starts - row_starts(counts), counts) + np.arange(counts.sum())


def _number(value: int) -> int | None:
    """Return a value of the file, or None if it is absent."""
    return None if value in (NONE32, NONE64) else value
