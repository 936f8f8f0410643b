"""Give numbers to request, batch, session and result objects, and store them on these objects."""

from __future__ import annotations

import itertools
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .reading import every

_SESSION = "_specdiff_session"  # on streaming sessions: (serial of the numbering, number)
# How many batches' requests to remember. In turn these are those of the running batch, of a batch
# that was just extended, and of the two after a merge.
_RECENT = 4
_UNTAGGABLE = 16  # how many batches to remember on which no attribute can be set
_serials = itertools.count(1)


class Picked(NamedTuple):
    """The recorded requests of a batch, in batch order.

    Do not modify its lists: `pick` returns the same object again.
    """

    reqs: list[Any]
    qids: list[int]
    at: list[int] | None  # their positions in the batch; None: all requests are recorded
    size: int  # number of requests in the batch

    @property
    def none_recorded(self) -> bool:
        """Whether the batch has requests, but none of them is recorded."""
        return self.at is not None and not self.at

    def of(self, column: Sequence[Any]) -> Sequence[Any]:
        """Select the entries of the recorded requests from a column over the batch."""
        return column if self.at is None else [column[i] for i in self.at]

    def runs(self, values: list[int]) -> list[int]:
        """Select their parts of a list that has an equal number of entries for each request.

        Return an empty list if the entries cannot be divided evenly.
        """
        if self.at is None:
            return values
        width, rest = divmod(len(values), self.size)
        return [] if rest else [one for i in self.at for one in values[i * width : (i + 1) * width]]


class Numbering:
    """The numbers that one recorder gives to objects.

    An object that another recorder numbered is new to this one, and so is a copy of an object. A
    request that is not recorded has an inverted number (`~number`, which is negative).
    """

    def __init__(
        self,
        announce: Callable[[int, Any, bool], None],
        late: bool = False,
        takes: Callable[[Any], bool] | None = None,
    ) -> None:
        """`announce(number, req, arrives)` is called when a request object is first seen.

        `late` says that the scheduler ran before this recorder, so that results of launches without
        a number may still come. `takes(req)` tells whether to record a request; None records all.
        """
        self._announce, self._late, self._takes = announce, late, takes
        self._serial = next(_serials)
        self._on_request = f"_specdiff_qid{self._serial}"
        self._tag = f"_specdiff{self._serial}"  # on batches and results: (id(object), number)
        self._every_qid = every(f"one.{self._on_request}")
        self._recent: deque[tuple[list[Any], Picked]] = deque(maxlen=_RECENT)
        self._under_way: Picked | None = None  # launched in this iteration of the scheduler loop
        self._requests = self._batches = self._launches = self._sessions = 0
        self._untaggable: deque[tuple[Any, int]] = deque(maxlen=_UNTAGGABLE)
        self._unanswered: deque[int] = deque()
        self._lost_launches: set[int] = set()
        self.live: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    def pick(self, reqs: list[Any]) -> Picked:
        """Return the recorded requests of a batch."""
        for known, picked in self._recent:  # fast: list comparison checks identity first
            if known == reqs:
                return picked
        if not reqs:  # do not keep requests alive on an idle server
            self._recent.clear()
            return Picked([], [], None, 0)
        try:
            (numbers,) = self._every_qid(reqs)
        except AttributeError:
            numbers = [self.qid(req) for req in reqs]
        known = list(reqs)
        picked = Picked(known, numbers, None, len(known))
        if self._takes is not None and min(numbers) < 0:
            at = [i for i, number in enumerate(numbers) if number >= 0]
            picked = Picked([known[i] for i in at], [numbers[i] for i in at], at, len(known))
        self._recent.appendleft((known, picked))
        return picked

    def end_turn(self) -> None:
        """At the end of a scheduler iteration, forget all lists except for that of the last launch.

        sglang itself keeps the requests of that launch alive. The others may have ended; if the
        batch no longer changes (one long request remains), remembering them would keep them and
        their rows in memory.
        """
        under_way, self._under_way = self._under_way, None
        if len(self._recent) > 1 or under_way is None:
            kept = (one for one in self._recent if one[1] is under_way)
            self._recent = deque(kept, _RECENT)

    def count(self, reqs: list[Any]) -> int:
        """Return how many of the requests are recorded."""
        return len(reqs) if self._takes is None else len(self.pick(reqs).qids)

    def qid(self, req: Any) -> int:
        """Return the number of a request; it is negative if the request is not recorded."""
        number: int | None = getattr(req, self._on_request, None)
        return self.register(req) if number is None else number

    def knows(self, req: Any) -> bool:
        """Whether this object was seen. A copy has the number of its original, but counts as new."""
        number = getattr(req, self._on_request, None)
        return number is not None and self.live.get(number) is req

    def alive(self) -> list[tuple[int, Any]]:
        """Return (number, request) of all live requests, ordered by number.

        It does not use `live.items()`: a lookup in `live` on another thread removes dead entries,
        which would change the dictionary during that loop.
        """
        found = ((ref.key, ref()) for ref in self.live.valuerefs())
        return sorted((number, req) for number, req in found if req is not None)

    def register(self, req: Any, *, arrives: bool = False) -> int:
        """Give a new request object its number, and announce it.

        `arrives`: the request enters the server just now.
        """
        number, self._requests = self._requests, self._requests + 1
        qid = number if self._takes is None or self._takes(req) else ~number
        setattr(req, self._on_request, qid)
        self.live[qid] = req
        self._announce(number, req, arrives)
        return qid

    def batch(self, batch: Any) -> int:
        number = self._number_on(batch)
        return self._register_batch(batch) if number is None else number

    def renumber(self, batch: Any) -> None:
        """Give a batch that consists of unrecorded requests a new number.

        It is about to receive recorded requests; what was recorded under its old number does not
        apply to it any more.
        """
        self._untaggable = deque(
            (one for one in self._untaggable if one[0] is not batch), _UNTAGGABLE
        )
        self._register_batch(batch)

    def _register_batch(self, batch: Any) -> int:
        number, self._batches = self._batches, self._batches + 1
        if not self._set_tag(batch, number):
            self._untaggable.append((batch, number))
        return number

    def session(self, session: Any) -> int:
        """Return the number of a session object.

        A session that is closed and reopened under the same name has lost its KV, so it counts as a
        different one.
        """
        serial, number = getattr(session, _SESSION, (0, 0))
        if serial != self._serial:
            number, self._sessions = self._sessions, self._sessions + 1
            setattr(session, _SESSION, (self._serial, number))
        return int(number)

    def forget_session(self, session: Any) -> None:
        """Forget a session's number, because its KV now comes from a turn that is not recorded.

        It gets a new number when it is seen again.
        """
        if hasattr(session, _SESSION):
            delattr(session, _SESSION)

    def launch(self, result: Any, answerable: bool, picked: Picked | None = None) -> int:
        """Give a launch its number, and put that on the result object that will be processed later.

        `answerable` is False for an idle launch, whose result is never processed. `picked` holds
        the launched requests.
        """
        number, self._launches = self._launches, self._launches + 1
        self._under_way = picked
        self._set_tag(result, number)
        if answerable:
            self._unanswered.append(number)
        return number

    def under_way(self, answered: int | None) -> list[int]:
        """Return the launches after `answered` whose results were not processed yet.

        If `answered` is None (a launch without a number), return all unprocessed launches.
        """
        return [one for one in self._unanswered if answered is None or one > answered]

    def mark_lost(self, launch: int) -> None:
        """Note that a launch is not in the journal, so that its result will not refer to it."""
        self._lost_launches.add(launch)

    def answered(self, result: Any) -> int | None:
        """Return the launch of this result: the one in its tag, else the oldest unprocessed one.

        Return None if that launch is unknown or not in the journal.
        """
        number = self._number_on(result)
        if number is not None:
            # Results come in the order of their launches, so no older ones are left.
            self._late = False
        elif self._unanswered and not self._late:
            number = self._unanswered[0]
        if number is None:
            return None
        if number in self._unanswered:
            self._unanswered.remove(number)
        if number in self._lost_launches:
            self._lost_launches.discard(number)
            return None
        return number

    def _number_on(self, thing: Any) -> int | None:
        tag = getattr(thing, self._tag, None)
        if tag is not None and tag[0] == id(thing):  # a copy has the tag of its original
            number: int = tag[1]
            return number
        return self._remembered(thing)

    def _remembered(self, thing: Any) -> int | None:
        return next((number for kept, number in self._untaggable if kept is thing), None)

    def _set_tag(self, thing: Any, number: int) -> bool:
        try:
            setattr(thing, self._tag, (id(thing), number))
        except (AttributeError, TypeError):
            return False
        return True
