"""Which object is which: numbers for request, batch and result objects, left on the objects themselves."""

from __future__ import annotations

import itertools
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .reading import every

_SESSION = "_specdiff_session"  # on streaming sessions: (whose numbering, number)
_RECENT = 4  # batches whose numbers are remembered: who runs, who was extended, and both merged take turns
_UNTAGGABLE = 16  # how many batches that take no attributes are remembered
_serials = itertools.count(1)


class Picked(NamedTuple):
    """Those requests of a batch that are recorded, in its order. Nothing in it is to be changed: it is given out again."""

    reqs: list[Any]
    qids: list[int]
    at: list[int] | None  # their places in the batch; None: all of them
    size: int  # of the batch

    @property
    def nobody(self) -> bool:
        """Others are there, and none of these."""
        return self.at is not None and not self.at

    def of(self, column: Sequence[Any]) -> Sequence[Any]:
        """Their entries of a column over the batch."""
        return column if self.at is None else [column[i] for i in self.at]

    def runs(self, values: list[int]) -> list[int]:
        """Their parts of a list that has as many entries of each; none where it cannot be shared out."""
        if self.at is None:
            return values
        width, rest = divmod(len(values), self.size)
        return [] if rest else [one for i in self.at for one in values[i * width : (i + 1) * width]]


class Numbering:
    """The numbers of one recorder; an object that another one numbered, or a copy of one, is new to it.

    Of a request that is not to be recorded, the number on it is inverted (`~number`, below 0).
    """

    def __init__(
        self,
        announce: Callable[[int, Any, bool], None],
        late: bool = False,
        takes: Callable[[Any], bool] | None = None,
    ) -> None:
        """`announce(number, req, arrives)` is called for every request object, when it is first seen. `late`: the scheduler has been
        at work before, so that results of launches that nobody numbered may be on their way. `takes(req)`: whether it is to be
        recorded; None: all are."""
        self._announce, self._late, self._takes = announce, late, takes
        self._serial = next(_serials)
        self._on_request = f"_specdiff_qid{self._serial}"
        self._tag = f"_specdiff{self._serial}"  # on batches and results: (id of the object, number)
        self._every_qid = every(f"one.{self._on_request}")
        self._recent: deque[tuple[list[Any], Picked]] = deque(maxlen=_RECENT)
        self._under_way: Picked | None = None  # launched in this turn of the scheduler's loop
        self._requests = self._batches = self._launches = self._sessions = 0
        self._untaggable: deque[tuple[Any, int]] = deque(maxlen=_UNTAGGABLE)
        self._unanswered: deque[int] = deque()
        self._lost_launches: set[int] = set()
        self.live: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    def pick(self, reqs: list[Any]) -> Picked:
        """Those of a batch's requests that are recorded."""
        for known, picked in self._recent:  # objects that are the same are compared at once
            if known == reqs:
                return picked
        if not reqs:  # an idle server is not to keep requests alive
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
        """Only of whom a launch is under way is remembered: sglang holds on to those itself, and the others may have ended. A batch
        that never changes again (one long request is left of it) would keep them alive, and their rows."""
        under_way, self._under_way = self._under_way, None
        if len(self._recent) > 1 or under_way is None:
            kept = (one for one in self._recent if one[1] is under_way)
            self._recent = deque(kept, _RECENT)

    def count(self, reqs: list[Any]) -> int:
        """How many of them are recorded."""
        return len(reqs) if self._takes is None else len(self.pick(reqs).qids)

    def qid(self, req: Any) -> int:
        """Below 0: it is not to be recorded."""
        number: int | None = getattr(req, self._on_request, None)
        return self.meet(req) if number is None else number

    def knows(self, req: Any) -> bool:
        """Whether this very object was seen; a copy of one carries its number and is none the less new."""
        number = getattr(req, self._on_request, None)
        return number is not None and self.live.get(number) is req

    def alive(self) -> list[tuple[int, Any]]:
        """By number. Not `live.items()`: whoever asks `live` on another thread takes out who is gone, in the midst of that loop."""
        found = ((ref.key, ref()) for ref in self.live.valuerefs())
        return sorted((number, req) for number, req in found if req is not None)

    def meet(self, req: Any, *, arrives: bool = False) -> int:
        """Number a request object that is new to us, or even `arrives` just now."""
        number, self._requests = self._requests, self._requests + 1
        qid = number if self._takes is None or self._takes(req) else ~number
        setattr(req, self._on_request, qid)
        self.live[qid] = req
        self._announce(number, req, arrives)
        return qid

    def batch(self, batch: Any) -> int:
        number = self._number_on(batch)
        return self._meet_batch(batch) if number is None else number

    def begin_anew(self, batch: Any) -> None:
        """It has others in it than those that are recorded: what was said of it until now is not true of what it becomes."""
        self._untaggable = deque(
            (one for one in self._untaggable if one[0] is not batch), _UNTAGGABLE
        )
        self._meet_batch(batch)

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

    def lose_session(self, session: Any) -> None:
        """Its KV is from a turn that is not recorded: what comes is of another one."""
        if hasattr(session, _SESSION):
            delattr(session, _SESSION)

    def launch(self, result: Any, answerable: bool, picked: Picked | None = None) -> int:
        """Number a launch, of those, by the result object that will answer it; an idle one is never answered."""
        number, self._launches = self._launches, self._launches + 1
        self._under_way = picked
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
