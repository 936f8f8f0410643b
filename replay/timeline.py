"""One request's timeline: every event that concerns it, and what several paths compute for it there."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..recorders.errors import UsageError, printable, printable_id
from ..recorders.recording import Recording
from ..recorders.schema import NONE64, ROW_TABLES, Kind
from .columns.committed_len import CommittedWithClaims, committed_by_touch
from .columns.committed_len import claims as claims_of
from .columns.shared import Columns
from .detail import detail
from .expected import concrete
from .explain import Toggles
from .laws.weights import mislabelled
from .ledger import Ledger
from .lift.ledger import committed_with_claims
from .observed import observed_claims
from .other_values import QUANTITIES, OtherValue, other_values
from .paths.fixes import rules_of
from .quantity import Quantity
from .spec import FixSet, Lifted, Observed, Path
from .tensors import column, nullable
from .verdict import ledger_of


@dataclass(frozen=True, slots=True)
class Committed:
    """kv_committed_len, with the number of its slots that are claimed and not yet answered by a result."""

    raw: int
    claimed: int

    @property
    def settled(self) -> int:
        return self.raw - self.claimed

    def __str__(self) -> str:
        return f"{self.settled}+{self.claimed}" if self.claimed else str(self.raw)


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One event of a request's timeline.

    `committed` has one entry per path; None means that the path has no value there.
    """

    event: int
    step: int
    kind: Kind
    detail: str
    committed: tuple[Committed | None, ...]
    # Other values of the paths at this event, by quantity and path: see `other_values`.
    other_values: tuple[tuple[OtherValue | None, ...], ...] = ()

    @property
    def diverges(self) -> bool:
        """Whether the paths' settled lengths or other values differ at this event."""
        return any(True for _ in self._differing())

    def agrees(self, one: int, other: int) -> bool:
        """Whether two paths, by index, have the same value wherever this event's values differ."""
        return all(said[one] is not None and said[one] == said[other] for said in self._differing())

    def _differing(self) -> Iterator[tuple[object, ...]]:
        settled = tuple(value and value.settled for value in self.committed)
        for said in (settled, *self.other_values):
            if len({*said} - {None}) > 1:
                yield said


@dataclass(frozen=True, slots=True)
class RequestTimeline:
    """The events of one request."""

    rid: str
    qid: int
    paths: tuple[Path, ...]
    entries: tuple[TimelineEntry, ...]

    @property
    def as_observed(self) -> tuple[Path, ...]:
        """The paths whose values `observed` has wherever the paths differ; none if it is not shown, or nothing differs."""
        marked = [entry for entry in self.entries if entry.diverges]
        server = next(
            (at for at, path in enumerate(self.paths) if isinstance(path, Observed)), None
        )
        if server is None or not marked:
            return ()
        return tuple(
            path
            for at, path in enumerate(self.paths)
            if not isinstance(path, Observed) and all(entry.agrees(server, at) for entry in marked)
        )


def timelines(recording: Recording, rid: str, paths: Sequence[Path]) -> tuple[RequestTimeline, ...]:
    """Return every request with that id, oldest first (ids may be reused).

    An id with control characters, or a long one, may be given as reports print it: no shell can
    pass a NUL. Raises UsageError, which names the nearest ids, if there is none.
    """
    printed = [printable_id(known) for known in recording.rids]
    forms = (recording.rids, [printable(known) for known in recording.rids], printed)
    found = ([qid for qid, known in enumerate(form) if known == rid] for form in forms)
    qids = next(filter(None, found), [])
    if not qids:
        near = difflib.get_close_matches(printable_id(rid), printed, n=3, cutoff=0.3)
        if near:
            known = f"The nearest ids are {', '.join(near)}."
        elif printed:
            known = f"It holds {len(printed)} requests, such as {', '.join(printed[:3])}."
        else:
            known = "It holds no requests."
        raise UsageError(
            f"--request {printable_id(repr(rid))}: no such request in this recording. {known}"
        )
    columns, paths = Columns(recording), [concrete(path, recording) for path in paths]
    toggles = Toggles(columns, QUANTITIES)
    committed = [_committed(columns, path) for path in paths]
    ledgers = [ledger_of(columns, toggles, path, _wanted(path)) for path in paths]
    wrong = mislabelled(recording)
    return tuple(
        RequestTimeline(
            recording.rids[qid],
            qid,
            tuple(paths),
            tuple(_entries(columns, qid, committed, ledgers, wrong)),
        )
        for qid in qids
    )


def _wanted(path: Path) -> Sequence[Quantity]:
    """A lifted path is replayed only once, so the replay includes the committed lengths."""
    return tuple(Quantity) if isinstance(path, Lifted) else QUANTITIES


def _committed(columns: Columns, path: Path) -> CommittedWithClaims:
    """Compute the committed length and open claims of one path at every touch."""
    recording, touches = columns.recording, columns.touches
    if isinstance(path, FixSet):
        rules = rules_of(path.fixes)
        _, claims = claims_of(recording, touches, rules)
        made = committed_by_touch(recording, touches, rules)
        return CommittedWithClaims(made.after, claims, touches.seeded)
    if isinstance(path, Lifted):
        return committed_with_claims(columns, path)
    raw = torch.full_like(touches.row, NONE64)
    for kind, values in (
        (Kind.EXTEND, nullable(recording.extend_rows.committed)),
        (Kind.SEED, nullable(recording.seed_rows.seq_len)),
        (Kind.PREPARE, nullable(recording.prepare_rows.committed_after)),
        (Kind.RESULT, nullable(recording.result_rows.committed_after)),
        (Kind.RETRACT, column(recording.retracts.committed_after)),
    ):
        mine = touches.kind == kind
        raw[mine] = values[touches.row[mine]]
    _, claims, sure = observed_claims(columns)
    return CommittedWithClaims(raw, claims, (raw != NONE64) & sure)


def _entries(
    columns: Columns,
    qid: int,
    of_paths: Sequence[CommittedWithClaims],
    ledgers: Sequence[Ledger],
    wrong: Mapping[int, int],
) -> Iterator[TimelineEntry]:
    """Yield the events of one request in order. `wrong` is the return value of `mislabelled`."""
    recording, touches = columns.recording, columns.touches
    touch_at = {
        int(touches.event[i]): i for i in torch.nonzero(touches.qid == qid).flatten().tolist()
    }
    for event, row in sorted(_events_of(recording, qid)):
        kind = Kind(int(recording.events.kind[event]))
        if kind is Kind.FILTER and _removes_nobody(recording, int(recording.events.ref[event])):
            continue
        touch = touch_at.get(event)
        if kind is Kind.FINISH:
            touch = touch_at.get(max((at for at in touch_at if at < event), default=-1))
        committed = tuple(_at(lengths, touch) for lengths in of_paths)
        said = detail(recording, kind, int(recording.events.ref[event]), row)
        if others := wrong.get(event, 0):
            said += f"; {others} of these tokens were computed by other weights"
        step = int(recording.events.iteration[event])
        yield TimelineEntry(event, step, kind, said, committed, other_values(ledgers, kind, event))


def _removes_nobody(recording: Recording, ref: int) -> bool:
    return bool(recording.filters.num_rows[ref] == recording.filters.size_before[ref])


def _at(lengths: CommittedWithClaims, touch: int | None) -> Committed | None:
    if touch is None or not lengths.known[touch]:
        return None
    return Committed(int(lengths.raw[touch]), int(lengths.claims[touch]))


def _events_of(recording: Recording, qid: int) -> Iterator[tuple[int, int]]:
    """Yield (event, row) for every event that names the request or affects all requests during its life.

    `row` is the row in the kind's row table, or in its event table.
    """
    named = list(_naming(recording, qid))
    yield from named
    if named:
        (first, _), (last, _) = min(named), max(named)
        for row, event in enumerate(recording.event_of(Kind.CONTROL).tolist()):
            if first < event < last:
                yield event, row


def _naming(recording: Recording, qid: int) -> Iterator[tuple[int, int]]:
    """Yield (event, row) for every event that names the request."""
    for kind in Kind:
        events = recording.event_of(kind)
        if kind in ROW_TABLES:
            rows = np.flatnonzero(recording.row_table(kind).qid == qid)
            yield from zip(events[recording.owner(kind)[rows]].tolist(), rows.tolist(), strict=True)
        elif hasattr(recording.event_table(kind), "qid"):
            rows = np.flatnonzero(recording.event_table(kind).qid == qid)
            yield from zip(events[rows].tolist(), rows.tolist(), strict=True)
