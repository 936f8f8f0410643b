"""Place the SEEDs of a journal in its recording.

A SEED marks where books begin, for requests that were already running when recording began.

The recorder writes a SEED after it has processed a result, when nothing is under way except one
prepared decode. The SEED's lengths are those before that prepare, with the result already included.
So the SEED is moved ahead of the prepare. The result itself is removed from the recording, because
its effect is already in the lengths.

A SEED is left out
- if it adds nothing new (every segment of a ring has one),
- if that prepare was not recorded,
- if the result also belongs to requests whose books have begun (a chunk of a prompt that ran
  together with decodes): those requests need the result.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from .errors import RecordingError
from .journal import Record
from .schema import NONE64, Kind
from .wire import WireEvent, unpack_event

_KINDS = (Kind.EXTEND, Kind.PREPARE, Kind.LAUNCH, Kind.RESULT, Kind.GAP, Kind.SEED)


@dataclass(slots=True)
class Plan:
    """What to do with the events of a journal, by their positions in it."""

    left_out: set[int] = field(default_factory=set)
    ahead: dict[int, WireEvent] = field(default_factory=dict)  # SEEDs to insert before an event
    in_place: dict[int, WireEvent] = field(default_factory=dict)  # SEEDs that replace an event

    def events(self, place: int, event: WireEvent) -> Iterator[WireEvent]:
        """Yield the events that the recording gets for the journal's event at `place`."""
        if place in self.ahead:
            yield self.ahead[place]
        if place not in self.left_out:
            yield self.in_place.get(place, event)


def plan(records: Sequence[Record], format: int) -> Plan:
    """Plan where the SEEDs of a journal go. `format` is as in `journal.Scan`."""
    seed_plan = Plan()
    if any(record.type == Kind.SEED for record in records):
        walk = _Walk(seed_plan)
        for place, record in enumerate(records):
            if record.type in _KINDS:
                with suppress(RecordingError):  # `build` reports it, with the position
                    walk.event(place, unpack_event(Kind(record.type), record.payload, format))
    return seed_plan


class _Prepare(NamedTuple):
    place: int
    event: WireEvent


class _Walk:
    """Walks through a journal's events and fills a plan; it remembers the events since the last GAP."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._after_gap = False
        self._begin()

    def _begin(self) -> None:
        self._begun: set[int] = set()  # requests whose books have begun
        self._prepares: dict[int, _Prepare] = {}  # by batch
        self._launches: dict[int, _Prepare] = {}  # by launch, until its result
        # The last results: position and requests. Between a prepare and the SEED that follows it
        # there is one, or two if one of them belongs to an extend.
        self._results: deque[tuple[int, set[int]]] = deque(maxlen=8)

    def event(self, place: int, event: WireEvent) -> None:
        if event.kind is Kind.GAP:
            self._after_gap = True
            self._begin()
        elif event.kind is Kind.EXTEND:
            self._begun |= _qids(event)
        elif event.kind is Kind.PREPARE:
            self._prepares[event.fields[0]] = _Prepare(place, event)
        elif event.kind is Kind.LAUNCH:
            batch, launch = event.fields[:2]
            if batch in self._prepares:
                self._launches[launch] = self._prepares.pop(batch)
        elif event.kind is Kind.RESULT:
            self._launches.pop(event.fields[0], None)
            self._results.append((place, _qids(event)))
        else:
            self._plan.left_out.add(place)
            self._seed(place, event)

    def _seed(self, place: int, event: WireEvent) -> None:
        size = event.fields[-1]
        begins = [
            int(may and qid not in self._begun)
            for qid, may in zip(event.rows[:size], event.rows[size : 2 * size], strict=True)
        ]
        new = {qid for qid, begin in zip(event.rows[:size], begins, strict=True) if begin}
        target = self._target(place, event)
        if not new or target is None or not self._after_gap:
            return
        since = [(at, qids) for at, qids in self._results if at > target.place and new & qids]
        if any(qids & self._begun for _, qids in since):
            return  # that result also belongs to requests whose books have begun, so it must stay
        moved = replace(
            event,
            time_ns=target.event.time_ns,
            iteration=target.event.iteration,
            rows=event.rows[:size] + array("i", begins) + event.rows[2 * size :],
        )
        if target.place == place:
            self._plan.left_out.discard(place)
            self._plan.in_place[place] = moved
        else:
            self._plan.ahead[target.place] = moved
        self._plan.left_out |= {at for at, _ in since}
        self._begun |= new

    def _target(self, place: int, event: WireEvent) -> _Prepare | None:
        """Return the prepare that the SEED goes before, or the SEED's own position if none is open.

        Return None if the prepare of its launch was not recorded.
        """
        batch, launch = event.fields[:2]
        if launch != NONE64:
            return self._launches.get(launch)
        return self._prepares.get(batch, _Prepare(place, event))


def _qids(event: WireEvent) -> set[int]:
    return set(event.rows[: event.fields[-1]])
