"""The result of a replay as JSON: a list with one object per recording."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..replay.aligned import RankDifference
from ..replay.contents import Contents
from ..replay.rank_comparison import Pair, RanksOfRun
from ..replay.verdict import (
    ByFix,
    Divergence,
    FinishDecision,
    HistogramSums,
    QuantityResult,
    RowSpan,
    Value,
)
from .console import write_json
from .known_mismatches import JudgedRecording
from .project_settings import KnownMismatch

SCHEMA_VERSION = 1


def print_results(results: Sequence[JudgedRecording], ranks: Sequence[RanksOfRun] = ()) -> None:
    pairs = {pair.right.path: pair for run in ranks for pair in run.pairs}
    write_json([_result(one, pairs.get(one.path)) for one in results])


def _result(judged: JudgedRecording, pair: Pair | None) -> dict[str, Any]:
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
            "rank": {
                "dp": run.dp_rank,
                "dp_size": run.dp_size,
                "pp": run.pp_rank,
                "pp_size": run.pp_size,
                "tp": run.tp_rank,
                "tp_size": run.tp_size,
            },
            "agreement": pair and _agreement(pair),
        },
        "old": str(result.old),
        "fixed": str(result.new),
        "verdict": result.verdict.value,
        "quantities": {
            quantity.quantity.value: quantity_to_json(
                quantity, judged.excused.get(quantity.quantity)
            )
            for quantity in result.quantities
        },
        "exercised": {
            name: None if name in result.not_held else count
            for name, count in result.exercised.items()
        },
        "unknown_globals": list(result.unknown),
    }


def _agreement(pair: Pair) -> dict[str, Any]:
    result = pair.agreement
    return {
        "compared_with": str(pair.left.path),
        "events": result.num_events,
        "compared": result.num_values,
        "differed": result.num_differed,
        "first": result.first and _difference(result.first),
        "first_of_request": result.first_of_request and _difference(result.first_of_request),
        "not_compared": {
            "first_rank": result.num_left,
            "this_rank": result.num_right,
            "why": list(result.why),
        },
    }


def _difference(first: RankDifference) -> dict[str, Any]:
    return {
        "step": first.step,
        "event": first.event,
        "kind": first.kind.name.lower(),
        "rid": first.rid,
        "what": first.what,
        "first_rank": first.left,
        "this_rank": first.right,
    }


def quantity_to_json(result: QuantityResult, known: KnownMismatch | None = None) -> dict[str, Any]:
    return {
        "compared": result.num_compared,
        "differed": result.num_differed,
        "not_captured": result.num_not_captured,
        "excused": result.num_excused,
        "unexplained": result.num_unexplained,
        "first": _divergence(result.first),
        "first_unexplained": _divergence(result.first_unexplained),
        "why_not_compared": result.why_not,
        "contents": result.contents and _contents(result.contents),
        "known": known and {"reason": known.reason, "until": known.until},
        "by_fix": {str(fix.number): _by_fix(fix) for fix in result.by_fix},
    }


def _contents(contents: Contents) -> dict[str, int]:
    return {
        "compared": contents.num_compared,
        "differed": contents.num_differed,
        "not_captured": contents.num_not_captured,
    }


def _by_fix(fix: ByFix) -> dict[str, Any]:
    return {"differed": fix.num_differed, "first": _divergence(fix.first)}


def _divergence(first: Divergence | None) -> dict[str, Any] | None:
    return None if first is None else divergence_to_json(first)


def divergence_to_json(first: Divergence) -> dict[str, Any]:
    return {
        "step": first.step,
        "event": first.event,
        "kind": first.kind.name.lower(),
        "rid": first.rid,
        "old": _value(first.old),
        "fixed": _value(first.new),
        "cause": first.cause,
        "fixes": [sorted(fixes) for fixes in first.fixes],
        "recorded_as": first.recorded_as,
    }


def _value(value: Value) -> int | dict[str, Any] | None:
    if isinstance(value, RowSpan):
        return {"start": value.start, "end": value.end, "rows": value.end - value.start}
    if isinstance(value, HistogramSums):
        return {"steps": value.steps, "drafts": value.drafts}
    if isinstance(value, FinishDecision):
        reason = value.reason and value.reason.name.lower()
        return {"reason": reason, "finished_len": value.length}
    return value
