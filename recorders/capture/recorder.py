"""The recorder of one scheduler: it queues events for the journal, and keeps count of what that costs and loses."""

from __future__ import annotations

import contextlib
import json
import logging
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic_ns as now
from typing import Any

from ..journal import Type, frame
from ..run import Run, Stats, to_json
from ..schema import NONE64, Kind
from ..wire import pack_event
from .choice import EVERYTHING, Choice, Veil
from .journal_file import Call
from .numbering import Numbering
from .online import breaches
from .overhead import Overhead
from .reading import Access, int64
from .request import Met
from .seeding import Seeding
from .writer import JournalWriter

logger = logging.getLogger("specdiff")

_REQUEST_BYTES = 1000  # what is noted about a request, until it is written
_INT_BYTES = 40  # what a number in a list takes at most: a reference and the object


class Recorder:
    """Everything here runs on the scheduler's thread but `stats` and `close`, and what says that it is on the writer's.

    max_bytes: of memory; where it is used up, what happens until the next step is dropped. choice: what is recorded of whom.
    max_steps: decode steps, after which nothing is recorded any more. late: the scheduler has been at work before.
    ring_s: only so many last seconds are kept, and laws are watched for.
    """

    def __init__(
        self,
        scheduler: Any,
        path: Path,
        max_bytes: int,
        run: Run,
        every_step: bool = False,
        choice: Choice = EVERYTHING,
        max_steps: int | None = None,
        late: bool = False,
        ring_s: float | None = None,
    ) -> None:
        self._scheduler = weakref.ref(scheduler)
        self._access: Access | None = None
        self._before_next: Callable[[], object] | None = None
        self._missed = late  # whether anything that has happened may be missing
        self._gap = int(late)  # nobody knows how many: one stands for all that came before
        self._dropping: tuple[int, int] | None = None  # the stamp at which memory was used up
        self._max_bytes, self._max_steps = max_bytes, max_steps
        self.choice, self._veil = choice, None if choice.tokens else Veil()
        self.ended = False  # nothing more is to be recorded; whoever sees it closes this recorder
        self.numbers = Numbering(self._announce, late, None if choice.everyone else self._takes)
        self.seeding = Seeding(wanted=late)
        self._breaks = 0  # the writer's own, as far as a step has seen
        self.named: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
        self.asked: tuple[int, int] | None = None  # the last [start, end) asked of a capturer
        self.released = NONE64  # the committed length that the release under way asked for
        self.resolved = False  # the resolve function ran for the result being processed
        self.extended = False  # that is a prefill's
        self.finishing: object = None  # the `finish_probes.Finish` under way
        self.finished_at: dict[int, int] = {}  # qid -> committed at finish, while processing
        self.grammars = False  # whether any request has come with one
        self.overhead = Overhead()
        self.events = self.dropped = self.exceptions = 0
        self.first_exception: str | None = None
        self.run, self.path = run, path
        self.breach: str | None = (
            None  # of a law, on the writer's thread; whoever acts on it takes it back
        )
        self._watches = ring_s is not None
        first = frame(Type.RUN, to_json(run).encode())
        self.writer = JournalWriter(
            path, first, max_bytes, self.stats, self.failed, every_step, ring_s, self._is_there
        )

    def _is_there(self, number: int) -> bool:
        """On the writer's thread."""
        return number in self.numbers.live or ~number in self.numbers.live

    @property
    def scheduler(self) -> Any:
        return self._scheduler()

    # -- events

    def emit(
        self,
        kind: Kind,
        values: Sequence[Any],
        columns: Sequence[Sequence[int]] = (),
        tokens: Sequence[int] = (),
    ) -> bool:
        """Queue one event; False where it had to be dropped, which is counted.

        It is packed on the writer's thread, so nothing that is given may change any more. Of the `values`, what is no int
        (None, a tensor we must not synchronise on) is absent.
        """
        if self._before_next is not None:
            self.flush()
        stamp = now(), getattr(self._scheduler(), "forward_ct", 0)
        payload = (Recorder.pack, self, kind, stamp, values, columns, tokens)
        size = _INT_BYTES * (len(tokens) + (len(columns) * values[-1] if columns else 0))
        if self._gap or not self.writer.offer(kind, payload, size, stamp):
            return self._queue_at_gap(kind, payload, size, stamp)
        self.events += 1  # as `queue` does; written out, this runs a dozen times a step
        return True

    def pack(
        self,
        kind: Kind,
        stamp: tuple[int, int],
        values: Sequence[Any],
        columns: Sequence[Sequence[int]],
        rest: Sequence[int] | bytes,
    ) -> bytes:
        """`pack_event`, on the writer's thread, of what is to be written of an event."""
        values = [one if type(one) is int else int64(one) for one in values]
        if self._watches and self.breach is None:
            self.breach = self._breach(kind, values, columns)
        if self._veil is not None and rest and not isinstance(rest, bytes):
            rest = self._veil(rest)
        return pack_event(kind, *stamp, values, columns, rest)

    def _breach(
        self, kind: Kind, values: Sequence[int], columns: Sequence[Sequence[int]]
    ) -> str | None:
        try:
            return next(breaches(kind, values, columns), None)
        except Exception as error:  # noqa: BLE001 (the event is not lost with it)
            self.failed(error)
            return None

    def emit_later(self, pending: Callable[[], object]) -> None:
        """`pending` emits one event; it is called before the next event, at the latest."""
        self.flush()
        self._before_next = pending

    def flush(self) -> None:
        pending, self._before_next = self._before_next, None
        if pending is not None:
            try:
                pending()
            except Exception as error:  # noqa: BLE001 (the event that comes next is not lost with it)
                self.lost(error)

    def queue(self, kind: Kind, payload: Call, size: int, stamp: tuple[int, int]) -> bool:
        """`size`: bytes that `payload` keeps in memory until it is packed."""
        if self._gap or not self.writer.offer(kind, payload, size, stamp):
            return self._queue_at_gap(kind, payload, size, stamp)
        self.events += 1
        return True

    def _queue_at_gap(self, kind: Kind, payload: Call, size: int, stamp: tuple[int, int]) -> bool:
        """Where something is missing before this event, or there is no room for it."""
        if self._is_dropping(stamp) or not self.writer.has_room(size):
            self._dropping = self._dropping or stamp
            self._drop()
            return False
        self._mark_gap(stamp)
        self.events += 1
        self.writer.put(kind, payload, size, stamp)
        return True

    def _is_dropping(self, stamp: tuple[int, int]) -> bool:
        """Whole steps are dropped: until another forward, or a second, has gone by and there is room for some steps."""
        if self._dropping is not None:
            since, iteration = self._dropping
            passed = stamp[1] != iteration or stamp[0] - since > 1_000_000_000
            if passed and self.writer.has_room(self._max_bytes >> 3):
                self._dropping = None
        return self._dropping is not None

    def end_turn(self) -> None:
        """Of the scheduler's loop: a result was processed."""
        self.finishing = None
        self.numbers.end_turn()
        if self.resolved:
            self.overhead.decoded()
        elif self.extended:
            self.overhead.prefilled()
        else:
            self.overhead.idled()
        if (breaks := self.writer.breaks) != self._breaks:
            self._breaks = breaks
            self.seeding.want()
        if self._max_steps is not None and self.overhead.steps >= self._max_steps:
            self.ended = True

    def _drop(self) -> None:
        self._missed = True
        self.dropped += 1
        self._gap += 1

    def _mark_gap(self, stamp: tuple[int, int]) -> None:
        if self._gap:
            gap, self._gap = self._gap, 0
            self.seeding.want()
            self.events += 1
            self.writer.put(Kind.GAP, pack_event(Kind.GAP, *stamp, (gap,)), 0)

    def stamp(self) -> tuple[int, int]:
        """(time_ns, iteration) now."""
        return now(), getattr(self._scheduler(), "forward_ct", 0)

    def access(self, req: Any) -> Access:
        if self._access is None:
            self._access = Access.choose(req)
        return self._access

    def _takes(self, req: Any) -> bool:
        try:
            return self.choice.takes(str(req.rid))  # as `describe` says it
        except Exception:  # noqa: BLE001 (`_announce` asks for it, too, and counts that)
            return True

    def _announce(self, number: int, req: Any, arrives: bool) -> None:
        try:
            self.named[req.rid] = req  # an id that is used again names the newer request
            if number not in self.numbers.live:
                self.writer.put(Type.REQUEST, (_left_out, number), 0)
                return
            met = Met.of(req)
            self.grammars |= met.has_grammar
        except Exception as error:  # noqa: BLE001 (without a record, all later numbers would be off)
            self.lost(error)
            met = None
        # never dropped: its place is its number
        self.writer.put(Type.REQUEST, (self._described, number, met), _REQUEST_BYTES)
        seen = arrives or not self._missed
        self.emit(Kind.ARRIVE, (number, 0 if seen else None))

    def _described(self, number: int, met: Met | None) -> bytes:
        """On the writer's thread, before any token of it is packed."""
        record: dict[str, Any] = {"qid": number, "rid": f"unreadable-{number}"}
        try:
            if met is not None:
                described = met.describe()
                if self._veil is not None:
                    self._veil.learn(described)
                    record["veiled"] = True
                record |= described
        except Exception as error:  # noqa: BLE001 (see `_announce`)
            self.failed(error)
        return json.dumps(record, sort_keys=True).encode()

    # -- the recorder itself

    def correct(self, run: Run) -> None:
        """Replace what was said about the run when recording began."""
        self.run = run
        self.writer.put(Type.RUN, to_json(run).encode(), 0)

    def weights(self, version: str) -> int:
        """The number of weights of that name."""
        known = self.run.weight_versions
        if version not in known:
            self.correct(replace(self.run, weight_versions=(*known, version)))
        return self.run.weight_versions.index(version)

    def lost(self, error: Exception) -> None:
        """As `failed`, on the scheduler's thread: an event is missing, and a gap will say where."""
        self.failed(error)
        self._drop()

    def failed(self, error: Exception) -> None:
        """Count an exception of the recorder, log the first; the server never sees it."""
        self.exceptions += 1
        if self.first_exception is None:
            self.first_exception = type(error).__name__
            with contextlib.suppress(
                Exception
            ):  # one that cannot be printed is counted all the same
                self.first_exception += f": {error}"
            logger.warning("specdiff: the recorder failed, the server goes on", exc_info=error)

    def stats(self, closed: bool) -> Stats:
        decode, prefill = self.overhead.decode, self.overhead.prefill
        return Stats(
            events=self.events,
            dropped=self.dropped,
            exceptions=self.exceptions,
            first_exception=self.first_exception,
            step_ns_p50=decode.quantile(0.5),
            step_ns_p99=decode.quantile(0.99),
            step_ns_max=decode.max_ns,
            steps_measured=self.overhead.steps,
            closed=closed,
            prefill_ns_p50=prefill.quantile(0.5),
            prefill_ns_p99=prefill.quantile(0.99),
        )

    def close(self) -> None:
        self.flush()
        self._mark_gap(self.stamp())
        self.writer.close()


def _left_out(number: int) -> bytes:
    """Its place is its number, and `build` counts it."""
    return json.dumps({"qid": number, "rid": "", "left_out": True}).encode()
