"""Laws that one event alone can break, watched while they are recorded; `replay/laws` holds them all, on a recording.

Not among them: `batch-accepted`, which every release breaks, and `tokens`, which goes by what was sent since the arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from operator import gt

from ..schema import EVENT_TABLES, NONE32, NONE64, Kind

Values = Sequence[int]
_ABSENT = (NONE32, NONE64)
_FINISH = {field.name: at for at, field in enumerate(fields(EVENT_TABLES[Kind.FINISH]))}
_RESULT = {field.name: at for at, field in enumerate(fields(EVENT_TABLES[Kind.RESULT]))}


def breaches(kind: Kind, values: Values, columns: Sequence[Values]) -> Iterator[str]:
    """What this event breaks, as `law: in words`; `values` and `columns` as they are packed."""
    watch = _WATCHED.get(kind)
    return iter(()) if watch is None else watch(values, columns)


class Backoff:
    """Which breaches to act on: where a release breaks a law at every stop, each time takes twice as long until the next, so that
    what is kept of a week is a dozen rings."""

    def __init__(self, first_s: float) -> None:
        self._first_s = first_s
        self._next: dict[
            str, tuple[float, float]
        ] = {}  # law: (not before, and then not for so long)

    def wait_after(self, breach: str, now: float) -> float | None:
        """Of one of `breaches`: for how many seconds none of that law is heeded from now on; None: this one is not."""
        law = breach.partition(":")[0]
        not_before, quiet_s = self._next.get(law, (now, self._first_s))
        if now < not_before:
            return None
        self._next[law] = now + quiet_s, 2 * quiet_s
        return quiet_s


def _prepare(_: Values, columns: Sequence[Values]) -> Iterator[str]:
    """Looked at closely, row by row and without those where a value is absent, only where there may be something."""
    _, _, committed, before, allocated = columns
    if any(map(gt, committed, allocated)) and _above(committed, allocated):
        yield "allocation: more slots committed than allocated"
    if committed and min(committed) < 0 and _below_none(committed, allocated):
        yield "allocation: fewer slots committed than none"
    if any(map(gt, before, allocated)) and _above(before, allocated):
        yield "allocation: a prepare took slots back"


def _above(some: Values, limits: Values) -> bool:
    return any(one > limit != NONE32 for one, limit in zip(some, limits, strict=True))


def _below_none(committed: Values, allocated: Values) -> bool:
    rows = zip(committed, allocated, strict=True)
    return any(NONE32 < one < 0 and limit != NONE32 for one, limit in rows)


def _result(values: Values, _: Sequence[Values]) -> Iterator[str]:
    """A decode's result is sliced with the stride recorded on it, up to 0.5.11 the worker's; of others neither is there."""
    recorded, worker = values[_RESULT["stride"]], values[_RESULT["worker_stride"]]
    used = worker if recorded == NONE64 else recorded
    size = values[_RESULT["num_rows"]]
    width, rest = divmod(values[_RESULT["num_tokens"]], max(size, 1))
    if size and width and not rest and used != NONE64 and width != used:
        yield f"stride: rows of {width} tokens are sliced by {used}"


def _finish(values: Values, _: Sequence[Values]) -> Iterator[str]:
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
        if found is not None and found != expected and (asked or name == "indexer"):
            yield f"rows: {found} {name} rows where {expected} belong to the tokens returned"
    for counter, part in (
        ("spec_verify_ct", "histogram_sum"),
        ("spec_accepted_drafts", "histogram_weighted"),
    ):
        if of(counter) not in _ABSENT and of(part) != NONE64 and of(counter) != of(part):
            yield f"statistics: {counter} is {of(counter)}, the histogram says {of(part)}"


def _rows(values: Values, name: str) -> int | None:
    """That were collected; None where that is not known."""
    state, start, rows = (values[_FINISH[f"{name}_{what}"]] for what in ("state", "start", "rows"))
    if state == 1:
        return None if NONE64 in (start, rows) else rows
    return 0 if state == 0 else None


_WATCHED: dict[Kind, Callable[[Values, Sequence[Values]], Iterator[str]]] = {
    Kind.PREPARE: _prepare,
    Kind.RESULT: _result,
    Kind.FINISH: _finish,
}
