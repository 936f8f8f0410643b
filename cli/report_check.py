"""What came of the laws, as tables for a person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from ..replay.laws.law import Breach, Outcome, State
from .console import Output, printable

_STYLE = {
    State.HOLDS: "green",
    State.BROKEN: "bold red",
    State.KNOWN: "yellow",
    State.SILENCED: "yellow",
    State.NOT_EXERCISED: "dim",
}


def print_outcomes(found: Sequence[tuple[Path, tuple[Outcome, ...]]], path: str) -> None:
    console = Output()
    for file, outcomes in found:
        broken = sum(outcome.state is State.BROKEN for outcome in outcomes)
        holds = sum(outcome.state is State.HOLDS for outcome in outcomes)
        idle = sum(outcome.state is State.NOT_EXERCISED for outcome in outcomes)
        silenced = sum(outcome.state is State.SILENCED for outcome in outcomes)
        verdict = f"{broken} of {len(outcomes)} laws broken, {holds} hold, {idle} not exercised"
        verdict += f", {silenced} broken and silenced" if silenced else ""
        style = "bold red" if broken else "green"
        console.print(Text.assemble((str(file), "bold"), f"  {path}: ", (verdict, style)))
        _print(console, outcomes)
        console.print()


def _print(console: Output, outcomes: Sequence[Outcome]) -> None:
    made = console.table(
        "law", "", "checked", "broken", "first breach", "related PRs", right=(2, 3)
    )
    for outcome in outcomes:
        made.add_row(
            outcome.law.name,
            Text(outcome.state.value, style=_STYLE[outcome.state]),
            str(outcome.num_checked),
            str(outcome.num_broken),
            _breach(outcome.first) if outcome.first else "",
            ", ".join(f"#{number}" for number in outcome.law.related) if outcome.first else "",
        )
    console.print(made)
    for outcome in outcomes:
        if outcome.first:
            known = f" (known: {outcome.law.known})" if outcome.law.known else ""
            console.print(f"{outcome.law.name}: {outcome.law.statement}{known}")


def _breach(first: Breach) -> str:
    who = f"request {printable(first.rid)}" if first.rid is not None else "batch"
    return (
        f"step {first.step}, {first.kind.words} (event {first.event}), {who}: "
        f"{first.found}, expected {first.expected}"
    )
