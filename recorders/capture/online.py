"""Check, while recording, the laws that a single event can break.

`replay/laws` checks all laws on a recording. Two laws on single events are not checked here:
`batch-accepted`, which every release breaks, and `tokens`, which needs all messages since the
request's arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from operator import gt

from ..schema import EVENT_TABLES, NONE32, NONE64, Kind

EventValues = Sequence[int]
_ABSENT = (NONE32, NONE64)
_FINISH = {field.name: at for at, field in enumerate(fields(EVENT_TABLES[Kind.FINISH]))}
_RESULT = {field.name: at for at, field in enumerate(fields(EVENT_TABLES[Kind.RESULT]))}


def breaches(kind: Kind, values: EventValues, columns: Sequence[EventValues]) -> Iterator[str]:
    """Yield the laws that an event breaks, as `law: description`.

    `values` and `columns` are as in `pack_event`.
    """
    watch = _WATCHED.get(kind)
    return iter(()) if watch is None else watch(values, columns)


class Backoff:
    """Decides which breaches to act on.

    After each breach that is acted on, further breaches of the same law are ignored for twice as
    long as before. If a release breaks a law at every stop, a week leaves about a dozen rings.
    """

    def __init__(self, first_s: float) -> None:
        self._first_s = first_s
        # law -> (the time until which it is ignored, the length of the next such period)
        self._next: dict[str, tuple[float, float]] = {}

    def wait_after(self, breach: str, now: float) -> float | None:
        """Return for how many seconds this breach's law is ignored from now on.

        Return None if this breach itself is to be ignored.
        """
        law = breach.partition(":")[0]
        not_before, quiet_s = self._next.get(law, (now, self._first_s))
        if now < not_before:
            return None
        self._next[law] = now + quiet_s, 2 * quiet_s
        return quiet_s


def _prepare(_: EventValues, columns: Sequence[EventValues]) -> Iterator[str]:
    """Check a prepare. A fast test over whole columns comes first; only if it finds something are the
    rows checked one by one, skipping those with absent values."""
    _, _, committed, before, allocated = columns
    if any(map(gt, committed, allocated)) and _above(committed, allocated):
        yield "allocation: more slots committed than allocated"
    if committed and min(committed) < 0 and _below_none(committed, allocated):
        yield "allocation: a negative number of slots committed"
    if any(map(gt, before, allocated)) and _above(before, allocated):
        yield "allocation: a prepare reduced the allocated slots"


def _above(some: EventValues, limits: EventValues) -> bool:
    return any(one > limit != NONE32 for one, limit in zip(some, limits, strict=True))


def _below_none(committed: EventValues, allocated: EventValues) -> bool:
    rows = zip(committed, allocated, strict=True)
    return any(NONE32 < one < 0 and limit != NONE32 for one, limit in rows)


def _result(values: EventValues, _: Sequence[EventValues]) -> Iterator[str]:
    """Check the stride of a decode result.

    sglang slices its tokens with the stride on the result, up to 0.5.11 with that of the worker.
    Other results have neither.
    """
    recorded, worker = values[_RESULT["stride"]], values[_RESULT["worker_stride"]]
    used = worker if recorded == NONE64 else recorded
    size = values[_RESULT["num_rows"]]
    width, rest = divmod(values[_RESULT["num_tokens"]], max(size, 1))
    if size and width and not rest and used != NONE64 and width != used:
        yield f"stride: rows have {width} tokens but are sliced by {used}"


def _finish(values: EventValues, _: Sequence[EventValues]) -> Iterator[str]:
    def of(name: str) -> int:
        return values[_FINISH[name]]

    committed, allocated = of("committed"), of("allocated")
    known = committed not in _ABSENT and allocated not in _ABSENT
    if known and not 0 <= committed <= allocated:
        yield f"allocation: {committed} slots committed, {allocated} allocated"
    finished, start = of("finished_len"), of("start_len")
    seqlen = of("origin_len") + (of("output_len") if finished == NONE64 else finished)
    asked = of("return_routed_experts") == 1
    for name, first in (("experts", 0 if start == NONE64 else start), ("indexer", 0)):
        found, expected = _rows(values, name), max(seqlen - 1 - first, 0)
        if found is None or not (asked or name == "indexer"):
            continue
        # without the start, fewer rows may be what the client asked for
        if found > expected or (found < expected and (name == "indexer" or start != NONE64)):
            yield f"rows: {found} {name} rows, but the tokens returned have {expected}"
    for counter, part in (
        ("spec_verify_ct", "histogram_sum"),
        ("spec_accepted_drafts", "histogram_weighted"),
    ):
        if of(counter) not in _ABSENT and of(part) != NONE64 and of(counter) != of(part):
            yield f"statistics: {counter} is {of(counter)}, but the histogram gives {of(part)}"


def _rows(values: EventValues, name: str) -> int | None:
    """Return the number of rows collected, or None if it is not known."""
    state, start, rows = (values[_FINISH[f"{name}_{what}"]] for what in ("state", "start", "rows"))
    if state == 1:
        return None if NONE64 in (start, rows) else rows
    return 0 if state == 0 else None


_WATCHED: dict[Kind, Callable[[EventValues, Sequence[EventValues]], Iterator[str]]] = {
    Kind.PREPARE: _prepare,
    Kind.RESULT: _result,
    Kind.FINISH: _finish,
}
