"""Which object is which: numbers for request, batch and result objects, left on the objects themselves."""

from __future__ import annotations

import itertools
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from .reading import every

_SESSION = "_specdiff_session"  # on streaming sessions: (whose numbering, number)
_RECENT = 4  # batches whose numbers are remembered: who runs, who was extended, and both merged take turns
_UNTAGGABLE = 16  # how many batches that take no attributes are remembered
_serials = itertools.count(1)


class Numbering:
    """The numbers of one recorder; an object that another one numbered, or a copy of one, is new to it."""

    def __init__(self, announce: Callable[[int, Any, bool], None], late: bool = False) -> None:
        """`announce(number, req, arrives)` is called for every request object, when it is first seen. `late`: the scheduler has been
        at work before, so that results of launches that nobody numbered may be on their way."""
        self._announce, self._late = announce, late
        self._serial = next(_serials)
        self._on_request = f"_specdiff_qid{self._serial}"
        self._tag = f"_specdiff{self._serial}"  # on batches and results: (id of the object, number)
        self._every_qid = every(f"one.{self._on_request}")
        self._recent: deque[tuple[list[Any], list[int]]] = deque(maxlen=_RECENT)
        self._requests = self._batches = self._launches = self._sessions = 0
        self._untaggable: deque[tuple[Any, int]] = deque(maxlen=_UNTAGGABLE)
        self._unanswered: deque[int] = deque()
        self._lost_launches: set[int] = set()
        self.live: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    def qids(self, reqs: list[Any]) -> list[int]:
        """The numbers of request objects, in their order; not to be changed, the list is given out again."""
        for known, numbers in self._recent:  # objects that are the same are compared at once
            if known == reqs:
                return numbers
        if not reqs:  # an idle server is not to keep requests alive
            self._recent.clear()
            return []
        try:
            (numbers,) = self._every_qid(reqs)
        except AttributeError:
            numbers = [self.qid(req) for req in reqs]
        self._recent.appendleft((list(reqs), numbers))
        return numbers

    def qid(self, req: Any) -> int:
        number: int | None = getattr(req, self._on_request, None)
        return self.meet(req) if number is None else number

    def knows(self, req: Any) -> bool:
        """Whether this very object was seen; a copy of one carries its number and is none the less new."""
        number = getattr(req, self._on_request, None)
        return number is not None and self.live.get(number) is req

    def meet(self, req: Any, *, arrives: bool = False) -> int:
        """Number a request object that is new to us, or even `arrives` just now."""
        number, self._requests = self._requests, self._requests + 1
        setattr(req, self._on_request, number)
        self.live[number] = req
        self._announce(number, req, arrives)
        return number

    def batch(self, batch: Any) -> int:
        number = self._number_on(batch)
        return self._meet_batch(batch) if number is None else number

    def _meet_batch(self, batch: Any) -> int:
        number, self._batches = self._batches, self._batches + 1
        if not self._leave_on(batch, number):
            self._untaggable.append((batch, number))
        return number

    def session(self, session: Any) -> int:
        """By object, not by name: one that is closed and opened anew has lost its KV, and is another."""
        serial, number = getattr(session, _SESSION, (0, 0))
        if serial != self._serial:
            number, self._sessions = self._sessions, self._sessions + 1
            setattr(session, _SESSION, (self._serial, number))
        return int(number)

    def launch(self, result: Any, answerable: bool) -> int:
        """Number a launch by the result object that will answer it; an idle one is never answered."""
        number, self._launches = self._launches, self._launches + 1
        self._leave_on(result, number)
        if answerable:
            self._unanswered.append(number)
        return number

    def under_way(self, answered: int | None) -> list[int]:
        """Launches behind this one (None: behind one that nobody numbered) that are not answered."""
        return [one for one in self._unanswered if answered is None or one > answered]

    def lose(self, launch: int) -> None:
        """The launch is not in the journal, so no result may refer to it."""
        self._lost_launches.add(launch)

    def answered(self, result: Any) -> int | None:
        """The launch that this result answers: by its tag, else the oldest one waiting; None where that is lost."""
        number = self._number_on(result)
        if number is not None:
            self._late = False  # results come in the order of their launches: those from before us are through
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
        if tag is not None and tag[0] == id(thing):  # a copy brings the tag of the other along
            number: int = tag[1]
            return number
        return self._remembered(thing)

    def _remembered(self, thing: Any) -> int | None:
        return next((number for kept, number in self._untaggable if kept is thing), None)

    def _leave_on(self, thing: Any, number: int) -> bool:
        try:
            setattr(thing, self._tag, (id(thing), number))
        except (AttributeError, TypeError):
            return False
        return True
