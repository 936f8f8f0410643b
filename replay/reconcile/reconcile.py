"""`specdiff reconcile`: compare every response with the recorded books of its request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...recorders.recording import Recording
from ..outputs import UNKNOWN
from ..verdict import Verdict
from .facts import Fact, FactValue, Ints, Side
from .read import Responses
from .recorded_facts import NO_END, NO_START, RecordedFacts
from .response import ABSENT, ROWS, Response

_AMBIGUOUS = "several responses or requests have this id"
_HEALTH = "HEALTH_CHECK"  # sglang's prefix for the ids of its own requests
_CONTENTS = {Fact.EXPERTS_ROWS: Fact.EXPERTS, Fact.INDEXER_ROWS: Fact.INDEXER}
_ROWS_OF = {contents: rows for rows, contents in _CONTENTS.items()}
_WIDTHS = {Fact.EXPERTS_ROWS: "experts", Fact.INDEXER_ROWS: "indexer"}


@dataclass(frozen=True, slots=True)
class Difference:
    """What a client received and what is recorded. For lists, this is the first entry that differs."""

    rid: str
    line: int
    received: int | str
    recorded: int | str


@dataclass(frozen=True, slots=True)
class FactResult:
    """The comparisons of one fact over all responses."""

    fact: Fact
    num_compared: int
    differences: tuple[Difference, ...]
    not_compared: dict[str, int]  # reason -> responses


@dataclass(frozen=True, slots=True)
class Reconciled:
    """The result. Requests and responses without a counterpart are listed, but never compared."""

    num_responses: int
    num_matched: int  # responses whose id is a recorded request's, those of ambiguous ids included
    facts: tuple[FactResult, ...]
    unknown: tuple[tuple[str, int], ...]  # responses (id, line) without a recorded request
    unanswered: tuple[str, ...]  # requests that ended but have no response
    unended: tuple[str, ...]  # requests with neither an end in the recording nor a response
    health_checks: int  # the server's own requests, among those without a response
    ambiguous: tuple[str, ...]  # ids with several responses or several requests
    unnamed: tuple[int, ...]  # lines that name no request
    unfinished: tuple[str, ...]
    num_parts: int

    @property
    def complete(self) -> bool:
        """Whether every response has its request, and every request that ended has its response."""
        return not (
            self.unknown or self.unanswered or self.ambiguous or self.unnamed or self.unfinished
        )

    def verdict(self, *, complete: bool) -> Verdict:
        """Return the verdict. With `complete`, a missing counterpart counts as a difference."""
        if any(one.differences for one in self.facts) or (complete and not self.complete):
            return Verdict.DIFFERS
        compared = any(one.num_compared for one in self.facts)
        return Verdict.SAME if compared else Verdict.NO_VERDICT


def reconcile(recording: Recording, responses: Responses) -> Reconciled:
    """Compare responses with the recording. Ids that are not unique are not compared."""
    recorded = RecordedFacts(recording)
    pairs, ambiguous, unknown, num_unclear = [], [], [], 0
    for rid, found in responses.whole.items():
        qids = recorded.qids.get(rid, [])
        if not qids:
            unknown += [(rid, one.line) for one in found]
        if len(found) > 1 or len(qids) > 1:
            ambiguous.append(rid)
            num_unclear += len(found) if qids else 0
        elif qids:
            pairs.append((found[0], qids[0]))
    sides = recorded.sides([qid for _, qid in pairs])
    tally = _Tally(recorded)
    tally.leave_out(num_unclear, _AMBIGUOUS)
    for response, qid in pairs:
        tally.add(response, qid, sides[qid])
    received = responses.whole.keys() | set(responses.unfinished)
    silent = [(rid, qids) for rid, qids in recorded.qids.items() if rid not in received]
    ours = [rid for rid, _ in silent if rid.startswith(_HEALTH)]
    silent = [(rid, qids) for rid, qids in silent if not rid.startswith(_HEALTH)]
    ended = recorded.ended
    return Reconciled(
        num_responses=responses.num_whole,
        num_matched=len(pairs) + num_unclear,
        facts=tuple(tally.results()),
        unknown=tuple(unknown),
        unanswered=tuple(rid for rid, qids in silent if ended.intersection(qids)),
        unended=tuple(rid for rid, qids in silent if not ended.intersection(qids)),
        health_checks=len(ours),
        ambiguous=tuple(ambiguous),
        unnamed=responses.unnamed,
        unfinished=responses.unfinished,
        num_parts=responses.num_parts,
    )


class _Tally:
    """Counts comparisons by fact, and keeps every difference."""

    def __init__(self, recorded: RecordedFacts) -> None:
        self._recorded = recorded
        self._compared = Counter[Fact]()
        self._differences: dict[Fact, list[Difference]] = {fact: [] for fact in Fact}
        self._not: dict[Fact, Counter[str]] = {fact: Counter() for fact in Fact}

    def leave_out(self, count: int, why: str) -> None:
        """Count responses of which no fact is compared."""
        for fact in Fact if count else ():
            self._not[fact][why] += count

    def add(self, response: Response, qid: int, recorded: Side) -> None:
        """Compare all facts of one response with what is recorded."""
        received = self._in_rows(response.says)
        for fact in Fact:
            if fact is Fact.TRAINER:
                self._add_trainer(response, received, qid)
            elif fact not in received.values or fact not in recorded.values:
                self._not[fact][_why_not(fact, received, recorded)] += 1
            else:
                self._hold(fact, response, received.values[fact], recorded.values[fact])

    def results(self) -> Iterator[FactResult]:
        for fact in Fact:
            found = tuple(self._differences[fact])
            yield FactResult(fact, self._compared[fact], found, dict(self._not[fact]))

    def _hold(
        self, fact: Fact, response: Response, received: FactValue, recorded: FactValue
    ) -> None:
        """Compare one fact; for lists, only the part that both sides have."""
        found: tuple[object, object] | None
        if isinstance(received, np.ndarray) and isinstance(recorded, np.ndarray):
            if not len(received) and len(recorded):  # the number of entries is a separate fact
                self._not[fact]["none in the response"] += 1
                return
            found = self._first(fact, received, recorded)
            whole = len(recorded) >= len(received) and UNKNOWN not in recorded[: len(received)]
            if found is None and not whole:
                self._not[fact]["only a part was recorded; that part equals the response"] += 1
                return
        else:
            found = None if received == recorded else (received, recorded)
        self._compared[fact] += 1
        if found is not None:
            self._differ(fact, response, *found)

    def _first(self, fact: Fact, received: Ints, recorded: Ints) -> tuple[str, str] | None:
        """Return the first entry that differs, among those that both have.

        The number of entries is a separate fact.
        """
        count = min(len(received), len(recorded))
        unlike = (received[:count] != recorded[:count]) & (recorded[:count] != UNKNOWN)
        if not unlike.any():
            return None
        at = int(np.flatnonzero(unlike)[0])
        rows = _WIDTHS.get(_ROWS_OF.get(fact, fact))
        place = f"token {at}" if rows is None else f"row {at // self._recorded.width(rows)}"
        return f"{received[at]} ({place})", f"{recorded[at]} ({place})"

    def _differ(self, fact: Fact, response: Response, received: object, recorded: object) -> None:
        assert isinstance(received, int | str) and isinstance(recorded, int | str)
        assert response.rid is not None
        self._differences[fact].append(Difference(response.rid, response.line, received, recorded))

    def _in_rows(self, says: Side) -> Side:
        """Split the flat values of rows into two facts: the number of rows, and their contents."""
        made = Side(dict(says.values), dict(says.why_not))
        for fact in ROWS:
            values, width = made.values.pop(fact, None), self._recorded.width(_WIDTHS[fact])
            if not isinstance(values, np.ndarray):
                made.put_all({fact: None, _CONTENTS[fact]: None}, says.why_not.get(fact, ABSENT))
            elif not width and len(values):
                why = "the recording does not say how many values a row has"
                made.put_all({fact: None, _CONTENTS[fact]: None}, why)
            elif width and len(values) % width:
                made.values[fact] = f"{len(values)} values, not a multiple of the row width {width}"
                made.why_not[_CONTENTS[fact]] = "the values do not form whole rows"
            else:
                made.values[fact] = len(values) // width if width else 0
                made.values[_CONTENTS[fact]] = values
        return made

    def _add_trainer(self, response: Response, received: Side, qid: int) -> None:
        """Check rows + start_len + 1 = prompt + returned tokens.

        If start_len is at the end of the sequence, there is no row to align. If it is not known, only
        too many rows for any start_len differ.
        """
        fact, start = Fact.TRAINER, self._recorded.start_len(qid)
        parts = [
            received.values.get(f) for f in (Fact.EXPERTS_ROWS, Fact.PROMPT_TOKENS, Fact.OUTPUT_IDS)
        ]
        rows, prompt, ids = parts
        if not (isinstance(rows, int) and isinstance(prompt, int) and isinstance(ids, int)):
            self._not[fact]["rows, prompt tokens or output ids are missing in the response"] += 1
        elif not self._recorded.is_finished(qid):
            self._not[fact][NO_END] += 1
        elif start is None and rows + 1 <= prompt + ids:
            self._not[fact][NO_START] += 1
        elif prompt + ids - 1 <= (start or 0):
            self._not[fact]["no row to align"] += 1
        else:
            self._compared[fact] += 1
            found = rows + (start or 0) + 1
            if found != prompt + ids:
                self._differ(fact, response, found, prompt + ids)


def _why_not(fact: Fact, received: Side, recorded: Side) -> str:
    """Return why a fact was not compared.

    If both sides lack it, give the recording's reason: it knows whether the client asked.
    """
    if fact in received.values:
        return recorded.why_not[fact]
    why = received.why_not[fact]
    if why != ABSENT:
        return why
    if fact not in recorded.values:
        return recorded.why_not[fact]
    zero = isinstance(recorded.values[fact], int) and recorded.values[fact] == 0
    return f"{ABSENT}, and recorded as 0" if zero else f"{ABSENT}, though recorded"
