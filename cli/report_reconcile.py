"""The result of comparing responses with a recording, as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from ..recorders.errors import printable, printable_id
from ..replay.reconcile.facts import Fact
from ..replay.reconcile.reconcile import Difference, FactResult, Reconciled
from ..replay.verdict import Verdict
from .console import Output, write_json

SCHEMA_VERSION = 1
_STYLE = {Verdict.SAME: "green", Verdict.DIFFERS: "bold red", Verdict.NO_VERDICT: "yellow"}
_SHOWN = 5  # names listed on a line


def print_table(recording: Path, responses: Path, found: Reconciled, *, complete: bool) -> None:
    console, verdict = Output(), found.verdict(complete=complete)
    compared = sum(one.num_compared for one in found.facts)
    differed = sum(len(one.differences) for one in found.facts)
    says = f"{differed} of {compared} values differ" if compared else "nothing was compared"
    says += (
        ", and some responses or requests have no counterpart"
        if complete and not found.complete
        else ""
    )
    says = f"{verdict.value}: {says}"
    console.print(
        Text.assemble((str(responses), "bold"), f" against {recording}  ", (says, _STYLE[verdict]))
    )
    console.print(
        f"{found.num_matched} of {found.num_responses} responses match a recorded request"
    )
    for what, names in _unmatched(found):
        console.print(Text(f"{what} ({len(names)}): {_some(names)}", "yellow"))
    for note in _notes(found):
        console.print(note, style="dim")
    console.print()
    _print_facts(console, found.facts)


def _print_facts(console: Output, facts: Sequence[FactResult]) -> None:
    table = console.table(
        "value", "compared", "differed", "not compared", "first difference", right=(1, 2, 3)
    )
    for one in facts:
        differed = len(one.differences)
        table.add_row(
            one.fact.value,
            str(one.num_compared),
            Text(str(differed), "bold red" if differed else ""),
            str(sum(one.not_compared.values())),
            _where(one.fact, one.differences[0]) if differed else "",
        )
    console.print(table)
    for reason, counts in _reasons(facts).items():
        console.print(Text(f"not compared: {_names(counts)}: {reason}", style="dim"))


def _reasons(facts: Sequence[FactResult]) -> dict[str, dict[Fact, int]]:
    """Reasons why facts were not compared, and for how many responses."""
    found: dict[str, dict[Fact, int]] = {}
    for one in facts:
        for reason, count in one.not_compared.items():
            found.setdefault(reason, {})[one.fact] = count
    return found


def _names(counts: Mapping[Fact, int]) -> str:
    """Facts and their counts. If nearly all facts have the same count, the exceptions are listed instead."""
    rest = [fact.value for fact in Fact if fact not in counts]
    if len(rest) <= 2 and len(set(counts.values())) == 1:
        but = f" except {' and '.join(rest)}" if rest else ""
        return f"everything{but} ({next(iter(counts.values()))})"
    return ", ".join(f"{fact.value} ({count})" for fact, count in counts.items())


def _where(fact: Fact, first: Difference) -> str:
    who = f"request {printable_id(first.rid)} (line {first.line})"
    if fact is Fact.TRAINER:
        return f"{who}: rows + start_len + 1 = {first.received}, prompt + returned tokens = {first.recorded}"
    received, recorded = (printable(str(value)) for value in (first.received, first.recorded))
    return f"{who}: received {received}, recorded {recorded}"


def _unmatched(found: Reconciled) -> list[tuple[str, list[str]]]:
    """Responses and requests without a counterpart: a description and the names."""
    unknown = [f"{printable_id(rid)} (line {line})" for rid, line in found.unknown]
    groups = (
        ("responses without a request in this recording", unknown),
        ("ended requests without a response", _ids(found.unanswered)),
        ("ids with several responses or requests, not compared", _ids(found.ambiguous)),
        ("streams without their last event", _ids(found.unfinished)),
        ("lines without a request id", [str(line) for line in found.unnamed]),
    )
    return [(what, names) for what, names in groups if names]


def _ids(rids: Sequence[str]) -> list[str]:
    return [printable_id(rid) for rid in rids]


def _notes(found: Reconciled) -> list[str]:
    notes = (
        (found.num_parts, "stream events before the last of their stream"),
        (len(found.unended), "requests still running when the recording ends, without a response"),
        (found.health_checks, "health checks by the server itself"),
    )
    return [f"{what}: {count}" for count, what in notes if count]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def print_json(recording: Path, responses: Path, found: Reconciled, *, complete: bool) -> None:
    report = {
        "schema_version": SCHEMA_VERSION,
        "recording": str(recording),
        "responses": str(responses),
        "verdict": found.verdict(complete=complete).value,
        "complete": found.complete,
        "num_responses": found.num_responses,
        "num_matched": found.num_matched,
        "facts": {one.fact.value: _fact(one) for one in found.facts},
        "unmatched_responses": [{"rid": rid, "line": line} for rid, line in found.unknown],
        "unanswered_requests": found.unanswered,
        "ambiguous_ids": found.ambiguous,
        "unfinished_streams": found.unfinished,
        "unnamed_lines": found.unnamed,
        "earlier_stream_events": found.num_parts,
        "unended_requests": found.unended,
        "health_checks": found.health_checks,
    }
    write_json(report)


def _fact(one: FactResult) -> dict[str, Any]:
    return {
        "compared": one.num_compared,
        "differed": len(one.differences),
        "not_compared": one.not_compared,
        "differences": [
            {"rid": d.rid, "line": d.line, "received": d.received, "recorded": d.recorded}
            for d in one.differences
        ],
    }
