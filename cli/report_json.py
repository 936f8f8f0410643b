"""The result of a replay as JSON: a list with one object per recording."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from ..replay.verdict import ByFix, Divergence, Finish, Histogram, QuantityResult, Rows, Value
from .known import Judged
from .settings import Known

SCHEMA_VERSION = 1


def print_results(results: Sequence[Judged]) -> None:
    json.dump([_result(one) for one in results], sys.stdout, indent=2)
    sys.stdout.write("\n")


def _result(judged: Judged) -> dict[str, Any]:
    path, result = judged.path, judged.result
    run = result.run
    return {
        "schema_version": SCHEMA_VERSION,
        "recording": {
            "path": str(path),
            "run_id": run.run_id,
            "sglang_version": run.sglang_version,
            "books": run.books,
            "events": result.num_events,
            "requests": result.num_requests,
            "warnings": list(result.warnings),
        },
        "old": str(result.old),
        "fixed": str(result.new),
        "verdict": result.verdict.value,
        "quantities": {
            quantity.quantity.value: _quantity(quantity, judged.excused.get(quantity.quantity))
            for quantity in result.quantities
        },
        "exercised": result.exercised,
        "unknown_globals": list(result.unknown),
    }


def _quantity(result: QuantityResult, known: Known | None) -> dict[str, Any]:
    return {
        "compared": result.num_compared,
        "differed": result.num_differed,
        "not_captured": result.num_not_captured,
        "excused": result.num_excused,
        "unexplained": result.num_unexplained,
        "first": _divergence(result.first),
        "why_not": result.why_not,
        "known": known and {"reason": known.reason, "until": known.until},
        "by_fix": {str(fix.number): _by_fix(fix) for fix in result.by_fix},
    }


def _by_fix(fix: ByFix) -> dict[str, Any]:
    return {"differed": fix.num_differed, "first": _divergence(fix.first)}


def _divergence(first: Divergence | None) -> dict[str, Any] | None:
    if first is None:
        return None
    return {
        "step": first.step,
        "event": first.event,
        "kind": first.kind.name.lower(),
        "rid": first.rid,
        "old": _value(first.old),
        "fixed": _value(first.new),
        "cause": first.cause,
        "fixes": [sorted(fixes) for fixes in first.fixes],
    }


def _value(value: Value) -> int | dict[str, Any] | None:
    if isinstance(value, Rows):
        return {"start": value.start, "end": value.end, "rows": value.end - value.start}
    if isinstance(value, Histogram):
        return {"steps": value.steps, "drafts": value.drafts}
    if isinstance(value, Finish):
        reason = value.reason and value.reason.name.lower()
        return {"reason": reason, "finished_len": value.length}
    return value
