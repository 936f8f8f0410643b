"""The recorder of one scheduler: it queues events for the journal and counts their cost and losses."""

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
from ..wire import pack_event, pack_gap
from .choice import EVERYTHING, Choice, TokenMask
from .journal_file import Call
from .numbering import Numbering
from .online import breaches
from .overhead import Overhead
from .reading import Access, int64
from .request_facts import RequestFacts
from .seeding import Seeding
from .writer import JournalWriter

logger = logging.getLogger("specdiff")

_INT_BYTES = 40  # maximum memory of a number in a list: a reference and the object


class Recorder:
    """Records one scheduler.

    Everything runs on the scheduler's thread, except for `stats`, `close` and the methods that are
    documented to run on the writer's thread.

    - `max_bytes`: memory limit. When it is reached, events are dropped until the next step.
    - `choice`: which requests to record, and what of their contents.
    - `max_steps`: stop recording after this many decode steps.
    - `late`: the scheduler ran before this recorder.
    - `ring_s`: keep only this many last seconds, and check laws while recording.
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
        self._missed = late  # whether any earlier event may be missing
        self._gap = int(late)  # events to report in the next GAP; 1 stands for all before the start
        self._dropping: tuple[int, int] | None = None  # stamp of the event that found memory full
        self._max_bytes, self._max_steps = max_bytes, max_steps
        self.choice, self._mask = choice, None if choice.tokens else TokenMask(self._is_there)
        self.ending = False  # to end with the current turn
        self.ended = False  # record nothing more; the code that notices this closes the recorder
        self._in_turn = False  # a result is being processed
        self.numbers = Numbering(self._announce, late, None if choice.everyone else self._takes)
        self.seeding = Seeding(wanted=late)
        self._breaks = 0  # the value of `writer.breaks` at the last step
        self.named: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
        self.asked: tuple[int, int] | None = None  # the last [start, end) requested from a capturer
        self.released = NONE64  # the committed length that the current release read
        self.resolved = False  # the resolve function ran for the current result
        self.extended = False  # the current result is that of a prefill
        self.finishing: object = None  # the `finish_probes.PendingFinish` in progress
        self.finished_at: dict[int, int] = {}  # qid -> committed length at its finish, per result
        self.grammars = False  # whether any request had a grammar
        self.overhead = Overhead()
        self.events = self.dropped = self.exceptions = 0
        self.first_exception: str | None = None
        self.run, self.path = run, path
        # A broken law, set on the writer's thread. The control thread acts on it and resets it.
        self.breach: str | None = None
        self._watches = ring_s is not None
        first = frame(Type.RUN, to_json(run).encode())
        self.writer = JournalWriter(
            path, first, max_bytes, self.stats, self.failed, every_step, ring_s, self._is_there
        )

    def _is_there(self, number: int) -> bool:
        """On the writer's thread: whether the server still has request `number`."""
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
        """Queue one event. Return False if it had to be dropped; dropped events are counted.

        The event is packed later, on the writer's thread, so the arguments must not be modified. Of
        `values`, everything except an int (None, a tensor that we must not sync on) becomes absent.
        """
        if self._before_next is not None:
            self.flush()
        stamp = now(), getattr(self._scheduler(), "forward_ct", 0)
        payload = (Recorder.pack, self, kind, stamp, values, columns, tokens)
        size = _INT_BYTES * (len(tokens) + (len(columns) * values[-1] if columns else 0))
        if self._gap or not self.writer.offer(kind, payload, size, stamp):
            return self._queue_at_gap(kind, payload, size, stamp)
        self.events += 1  # the same as in `queue`, inlined because it runs a dozen times per step
        return True

    def pack(
        self,
        kind: Kind,
        stamp: tuple[int, int],
        values: Sequence[Any],
        columns: Sequence[Sequence[int]],
        rest: Sequence[int] | bytes,
    ) -> bytes:
        """On the writer's thread: pack an event, after checking laws and replacing token ids if asked."""
        values = [one if type(one) is int else int64(one) for one in values]
        if self._watches and self.breach is None:
            self.breach = self._breach(kind, values, columns)
        if self._mask is not None and rest and not isinstance(rest, bytes):
            rest = self._mask(rest, columns[0] if columns else ())
        return pack_event(kind, *stamp, values, columns, rest)

    def _breach(
        self, kind: Kind, values: Sequence[int], columns: Sequence[Sequence[int]]
    ) -> str | None:
        try:
            return next(breaches(kind, values, columns), None)
        except Exception as error:  # noqa: BLE001 (still write the event)
            self.failed(error)
            return None

    def emit_later(self, pending: Callable[[], object]) -> None:
        """Call `pending`, which emits one event, before the next event or earlier."""
        self.flush()
        self._before_next = pending

    def flush(self) -> None:
        pending, self._before_next = self._before_next, None
        if pending is not None:
            try:
                pending()
            except Exception as error:  # noqa: BLE001 (do not lose the next event)
                self.lost(error)

    def queue(self, kind: Kind, payload: Call, size: int, stamp: tuple[int, int]) -> bool:
        """Queue an event that `payload` packs later. `size` is the memory that it needs until then.

        Return False if it had to be dropped.
        """
        if self._gap or not self.writer.offer(kind, payload, size, stamp):
            return self._queue_at_gap(kind, payload, size, stamp)
        self.events += 1
        return True

    def _queue_at_gap(self, kind: Kind, payload: Call, size: int, stamp: tuple[int, int]) -> bool:
        """Queue an event if events before it are missing, or if there is no room for it."""
        if self._is_dropping(stamp) or not self.writer.has_room(size):
            self._dropping = self._dropping or stamp
            self._drop()
            return False
        self._mark_gap(stamp)
        self.events += 1
        self.writer.put(kind, payload, size, stamp)
        return True

    def _is_dropping(self, stamp: tuple[int, int]) -> bool:
        """Whether this event belongs to a step that is being dropped.

        Steps are dropped as a whole: until the next forward pass or a second later, and until there
        is room for some steps.
        """
        if self._dropping is not None:
            since, iteration = self._dropping
            passed = stamp[1] != iteration or stamp[0] - since > 1_000_000_000
            if passed and self.writer.has_room(self._max_bytes >> 3):
                self._dropping = None
        return self._dropping is not None

    def begin_turn(self) -> None:
        """Begin to process a result. If the previous one has no end, sglang raised in the middle of it."""
        if self._in_turn:
            self._drop()
        self._in_turn = True

    def end_turn(self) -> None:
        """End a turn of the scheduler loop: a result was processed."""
        if self.ended:  # within this turn, so a part of it is missing: `close` writes a GAP
            return
        self._in_turn = False
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
        limit = self._max_steps
        if self.ending or (limit is not None and self.overhead.steps >= limit):
            self.flush()
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
            self.writer.put(Kind.GAP, pack_gap(*stamp, gap), 0)

    def stamp(self) -> tuple[int, int]:
        """Return the current (time_ns, iteration)."""
        return now(), getattr(self._scheduler(), "forward_ct", 0)

    def access(self, req: Any) -> Access:
        if self._access is None:
            self._access = Access.choose(req)
        return self._access

    def _takes(self, req: Any) -> bool:
        try:
            return self.choice.takes(str(req.rid))  # the same text as in `RequestFacts`
        except Exception:  # noqa: BLE001 (`_announce` reads it again, and counts the exception)
            return True

    def _announce(self, number: int, req: Any, arrives: bool) -> None:
        try:
            self.named[req.rid] = req  # if an id is reused, it refers to the newer request
            if number not in self.numbers.live:
                self.writer.put(Type.REQUEST, (_left_out, number), 0)
                return
            facts = RequestFacts.of(req)
            size = facts.num_bytes
            self.grammars |= facts.has_grammar
        except Exception as error:  # noqa: BLE001 (write the record, or the request has no name)
            self.lost(error)
            facts, size = None, 0
        # A REQUEST record is never dropped for lack of room, because other records refer to it.
        stamp = self.stamp()
        described = (self._described, number, facts, stamp[0])
        self.writer.put(Type.REQUEST, described, size, stamp)
        seen = arrives or not self._missed
        self.emit(Kind.ARRIVE, (number, 0 if seen else None))

    def _described(self, number: int, facts: RequestFacts | None, time_ns: int) -> bytes:
        """On the writer's thread: pack the REQUEST record, before any token of the request is packed."""
        record: dict[str, Any] = {"qid": number, "rid": f"unreadable-{number}"}
        try:
            if facts is not None:
                described = facts.describe()
                if self._mask is not None:
                    record["tokens_replaced"] = True
                    self._mask.learn(number, described, time_ns)
                record |= described
        except Exception as error:  # noqa: BLE001 (see `_announce`)
            self.failed(error)
        return json.dumps(record, sort_keys=True).encode()

    # -- the recorder itself

    def correct(self, run: Run) -> None:
        """Replace the run attributes that were written when recording began."""
        self.run = run
        data = to_json(run).encode()
        self.writer.put(Type.RUN, data, len(data))

    def weights(self, version: str) -> int:
        """Return the number of the weights with this name; a new name gets the next number."""
        known = self.run.weight_versions
        if version not in known:
            self.correct(replace(self.run, weight_versions=(*known, version)))
        return self.run.weight_versions.index(version)

    def lost(self, error: Exception) -> None:
        """Count an exception on the scheduler's thread that lost an event; a GAP will mark it."""
        self.failed(error)
        self._drop()

    def failed(self, error: Exception) -> None:
        """Count an exception of the recorder and log the first one. The server never sees it."""
        self.exceptions += 1
        if self.first_exception is None:
            self.first_exception = type(error).__name__
            with contextlib.suppress(Exception):  # its text may be impossible to print
                self.first_exception += f": {error}"
            logger.warning(
                "specdiff: an error in the recorder; the server goes on, and further errors are only counted",
                exc_info=error,
            )

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
            ended_early=self.ended,
            prefill_ns_p50=prefill.quantile(0.5),
            prefill_ns_p99=prefill.quantile(0.99),
        )

    def close(self) -> None:
        """Write what is queued. A GAP ends the recording if the rest of the current turn is missing."""
        if self._in_turn:
            self._before_next = None  # it would read a request that has changed since
            self._drop()
        self.flush()
        self._mark_gap(self.stamp())
        self.writer.close()


def _left_out(number: int) -> bytes:
    """Return the REQUEST record of a request that is not recorded.

    It is written so that a reader knows that the batches had other requests, too.
    """
    return json.dumps({"qid": number, "rid": "", "left_out": True}).encode()
