"""What came of the laws, as tables for a person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from ..replay.laws.law import Breach, Law, Outcome, State
from .console import Output, printable

Checked = Sequence[tuple[Path, tuple[Outcome, ...]]]

_STYLE = {
    State.HOLDS: "green",
    State.BROKEN: "bold red",
    State.KNOWN: "yellow",
    State.SILENCED: "yellow",
    State.NOT_EXERCISED: "dim",
}


def print_outcomes(found: Checked, path: str) -> None:
    """Each recording's laws; of several a summary; and last what the laws state."""
    console = Output()
    for file, outcomes in found:
        broken = sum(outcome.state is State.BROKEN for outcome in outcomes)
        style = "bold red" if broken else "green"
        console.print(
            Text.assemble((str(file), "bold"), f"  {path}: ", (_verdict(outcomes), style))
        )
        _print_laws(console, outcomes)
        console.print()
    if len(found) > 1:
        _print_summary(console, found)
        console.print()
    if found:
        _print_statements(console, [outcome.law for outcome in found[0][1]])


def _verdict(outcomes: Sequence[Outcome]) -> str:
    """Every law is in one of the numbers."""
    counts = {state: sum(outcome.state is state for outcome in outcomes) for state in State}
    rest = (
        (State.HOLDS, "hold"),
        (State.KNOWN, "broken as known"),
        (State.SILENCED, "silenced"),
        (State.NOT_EXERCISED, "not exercised"),
    )
    said = [f"{counts[state]} {words}" for state, words in rest if counts[state]]
    return ", ".join([f"{counts[State.BROKEN]} of {len(outcomes)} laws broken", *said])


def _print_laws(console: Output, outcomes: Sequence[Outcome]) -> None:
    made = console.table(
        "law", "", "checked", "broken", "first breach, or why not", "related PRs", right=(2, 3)
    )
    for outcome in outcomes:
        made.add_row(
            outcome.law.name,
            Text(outcome.state.value, style=_STYLE[outcome.state]),
            str(outcome.num_checked),
            str(outcome.num_broken),
            _breach(outcome.first) if outcome.first else Text(outcome.idle or "", style="dim"),
            ", ".join(f"#{number}" for number in outcome.law.related) if outcome.first else "",
        )
    console.print(made)
    for outcome in outcomes:
        if outcome.known:
            console.print(f"known of {outcome.law.name}: {outcome.known}")


def _print_summary(console: Output, found: Checked) -> None:
    """Law by law, in how many recordings it was what; and where it was broken first."""
    columns = (State.HOLDS, State.BROKEN, State.KNOWN, State.NOT_EXERCISED)
    names = (state.value.removesuffix(" violation") for state in columns)
    made = console.table("law", *names, "broken first in", "at", right=(1, 2, 3, 4))
    for index, outcome in enumerate(found[0][1]):
        each = [(file, outcomes[index]) for file, outcomes in found]
        counts = [sum(one.state is state for _, one in each) for state in columns]
        first = next(((file, one) for file, one in each if one.state is State.BROKEN), None)
        where = (first[0].name, _breach(first[1].first)) if first and first[1].first else ("", "")
        style = "bold red" if first else ""
        made.add_row(Text(outcome.law.name, style=style), *map(str, counts), *where)
    console.print(made)
    console.print(f"Numbers: of {len(found)} recordings.")


def _print_statements(console: Output, laws: Sequence[Law]) -> None:
    made = console.table("law", "states")
    for law in laws:
        made.add_row(law.name, law.statement, style="dim")
    console.print(made)


def _breach(first: Breach) -> str:
    who = f"request {printable(first.rid)}" if first.rid is not None else "batch"
    return (
        f"step {first.step}, {first.kind.words} (event {first.event}), {who}: "
        f"{first.found}, expected {first.expected}"
    )
