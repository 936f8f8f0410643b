"""The laws that one event alone can break, watched while they are recorded; `replay/laws` holds them all, on a recording."""

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


def _prepare(_: Values, columns: Sequence[Values]) -> Iterator[str]:
    _, _, committed, before, allocated = columns
    if any(map(gt, committed, allocated)):
        yield "allocation: more slots committed than allocated"
    if committed and min(committed) < 0 and NONE32 not in committed:
        yield "allocation: fewer slots committed than none"
    if any(map(gt, before, allocated)):
        yield "allocation: a prepare took slots back"


def _result(values: Values, _: Sequence[Values]) -> Iterator[str]:
    """A decode's result is sliced with the stride recorded on it, up to 0.5.11 the worker's; of others neither is there."""
    recorded, worker = values[_RESULT["stride"]], values[_RESULT["worker_stride"]]
    used = worker if recorded == NONE64 else recorded
    width, size = values[_RESULT["num_tokens"]], values[_RESULT["num_rows"]]
    if width and used != NONE64 and width // size != used:
        yield f"stride: rows of {width // size} tokens are sliced by {used}"


def _finish(values: Values, _: Sequence[Values]) -> Iterator[str]:
    def of(name: str) -> int:
        return values[_FINISH[name]]

    committed, allocated = of("committed"), of("allocated")
    if committed not in _ABSENT and not 0 <= committed <= allocated:
        yield f"allocation: {committed} slots committed, {allocated} allocated"
    finished = of("finished_len")
    seqlen = of("origin_len") + (of("output_len") if finished == NONE64 else finished)
    start = 0 if of("start_len") == NONE64 else of("start_len")
    for name, wanted, first in (
        ("experts", of("return_routed_experts") == 1, start),
        ("indexer", True, 0),
    ):
        expected = max(seqlen - 1 - first, 0)
        if of(f"{name}_state") == 1 and wanted and of(f"{name}_rows") != expected:
            yield f"rows: {of(f'{name}_rows')} {name} rows where {expected} belong to the tokens returned"
    for counter, part in (
        ("spec_verify_ct", "histogram_sum"),
        ("spec_accepted_drafts", "histogram_weighted"),
    ):
        if of(counter) not in _ABSENT and of(part) != NONE64 and of(counter) != of(part):
            yield f"statistics: {counter} is {of(counter)}, the histogram says {of(part)}"


_WATCHED: dict[Kind, Callable[[Values, Sequence[Values]], Iterator[str]]] = {
    Kind.PREPARE: _prepare,
    Kind.RESULT: _result,
    Kind.FINISH: _finish,
}
