"""The laws that are cheap enough to be watched while they are recorded; `replay/laws` holds them all, on what was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from operator import gt

from ..schema import EVENT_TABLES, NONE64, Kind, Reason

_FINISH = {field.name: at for at, field in enumerate(fields(EVENT_TABLES[Kind.FINISH]))}


def breach(kind: Kind, values: Sequence[int], columns: Sequence[Sequence[int]]) -> str | None:
    """The law that this event breaks, in words; None where it breaks none. `values` and `columns` as they are packed."""
    if kind is Kind.PREPARE:
        _, _, committed, _, allocated = columns
        if any(map(gt, committed, allocated)):
            return "more slots committed than allocated"
    elif kind is Kind.FINISH:
        return _rows(values)
    return None


def _rows(values: Sequence[int]) -> str | None:
    """`trainer`: start_len + rows + 1 == prompt tokens + returned tokens."""

    def of(name: str) -> int:
        return values[_FINISH[name]]

    rows, start, finished = of("experts_rows"), of("start_len"), of("finished_len")
    if (
        of("reason") == Reason.ABORT
        or NONE64 in (rows, start)
        or not of("return_routed_experts")
        or of("experts_state") != 1
    ):
        return None
    returned = of("output_len") if finished == NONE64 else finished
    expected = of("origin_len") + returned - 1 - start
    return None if rows == expected else f"{rows} routed rows where a trainer expects {expected}"
