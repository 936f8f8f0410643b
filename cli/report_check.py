"""The result of checking the laws, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from ..recorders.errors import printable_id
from ..replay.laws.law import Breach, Law, LawOutcome, State
from .console import Output

# Each recording, the path whose books were checked, and the laws.
Checked = Sequence[tuple[Path, str, tuple[LawOutcome, ...]]]

_STYLE = {
    State.HOLDS: "green",
    State.BROKEN: "bold red",
    State.KNOWN: "yellow",
    State.SILENCED: "yellow",
    State.NOT_EXERCISED: "dim",
}


# One character per law and recording, for the overview of several recordings.
_SIGN = {
    State.HOLDS: "+",
    State.BROKEN: "X",
    State.KNOWN: "k",
    State.SILENCED: "s",
    State.NOT_EXERCISED: ".",
}


def print_outcomes(found: Checked, *, details: bool) -> None:
    """Print the laws of one recording, or an overview of several. `details`: also print the laws of each of several."""
    console, several = Output(), len(found) > 1
    for file, path, outcomes in found if details or not several else ():
        broken = sum(outcome.state is State.BROKEN for outcome in outcomes)
        style = "bold red" if broken else "green"
        console.print(
            Text.assemble((str(file), "bold"), f"  {path}: ", (_verdict(outcomes), style))
        )
        _print_laws(console, outcomes)
        console.print()
    if several:
        _print_glance(console, found)
        _print_breaches(console, found)
        _print_summary(console, found)
    elif found:
        _print_statements(console, [outcome.law for outcome in found[0][2]])


def _print_glance(console: Output, found: Checked) -> None:
    """Print one line per recording and one column per law, headed by its number in the summary."""
    broken = sum(any(one.state is State.BROKEN for one in outcomes) for _, _, outcomes in found)
    style = "bold red" if broken else "green"
    says = f"{broken} of {len(found)} recordings break a law"
    paths = ", ".join(dict.fromkeys(path for _, path, _ in found))
    console.print(Text.assemble((paths, "bold"), ": ", (says, style)))
    for laws in _blocks(console.width, found):
        numbers = "".join(f"{number + 1:3}" for number in laws)
        table = console.table("recording", numbers)
        # the laws are one column, so that a narrow terminal wraps names but never laws
        table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"
        table.columns[1].no_wrap = True
        for file, _, outcomes in found:
            states = [outcomes[law].state for law in laws]
            signs = ((f"  {_SIGN[state]}", _STYLE[state]) for state in states)
            table.add_row(file.name, Text.assemble(*signs))
        console.print(table)
    console.print(", ".join(f"{sign} {state.value}" for state, sign in _SIGN.items()), style="dim")
    console.print()


def _blocks(width: int, found: Checked) -> list[range]:
    """Indices of the laws in blocks that fit beside a name on the terminal."""
    name = max(len("recording"), min(width // 2, max(len(file.name) for file, _, _ in found)))
    size, num_laws = max(1, (width - name - len(" | ")) // 3), len(found[0][2])
    return [range(first, min(first + size, num_laws)) for first in range(0, num_laws, size)]


def _print_breaches(console: Output, found: Checked) -> None:
    """Print the first breach of each law in each recording. One line each rather than a table, for narrow terminals."""
    broken = [
        (file, one) for file, _, outcomes in found for one in outcomes if one.state is State.BROKEN
    ]
    for file, one in broken:
        assert one.first is not None
        counts = f"{one.num_broken} of {one.num_checked} broken, first at {in_words(one.first)}"
        console.print(Text.assemble(file.name, " ", (one.law.name, "bold red"), f": {counts}"))
    if broken:
        console.print()


def _verdict(outcomes: Sequence[LawOutcome]) -> str:
    """Counts by state. Every law is in exactly one of them."""
    counts = {state: sum(outcome.state is state for outcome in outcomes) for state in State}
    rest = (
        (State.HOLDS, "hold"),
        (State.KNOWN, "with a known violation"),
        (State.SILENCED, "silenced"),
        (State.NOT_EXERCISED, "not exercised"),
    )
    said = [f"{counts[state]} {words}" for state, words in rest if counts[state]]
    return ", ".join([f"{counts[State.BROKEN]} of {len(outcomes)} laws broken", *said])


def _print_laws(console: Output, outcomes: Sequence[LawOutcome]) -> None:
    table = console.table(
        "law", "", "checked", "broken", "first breach, or reason", "related PRs", right=(2, 3)
    )
    for outcome in outcomes:
        table.add_row(
            outcome.law.name,
            Text(outcome.state.value, style=_STYLE[outcome.state]),
            str(outcome.num_checked),
            str(outcome.num_broken),
            in_words(outcome.first)
            if outcome.first
            else Text(outcome.why_not_exercised or "", style="dim"),
            _related(outcome.law) if outcome.first else "",
        )
    console.print(table)
    for outcome in outcomes:
        if outcome.known:
            console.print(f"known violation of {outcome.law.name}: {outcome.known}")
        if outcome.left_out:
            console.print(f"{outcome.law.name}: {outcome.left_out}")


def _print_summary(console: Output, found: Checked) -> None:
    """Print each law with its statement and the number of recordings in each state."""
    table = console.table(
        "", "law", *_SIGN.values(), "statement", right=(0, *range(2, 2 + len(_SIGN)))
    )
    table.columns[1].no_wrap = True
    for index, outcome in enumerate(found[0][2]):
        states = [outcomes[index].state for _, _, outcomes in found]
        style = "bold red" if State.BROKEN in states else ""
        counts = [str(states.count(state)) for state in _SIGN]
        name = Text(outcome.law.name, style=style)
        table.add_row(str(index + 1), name, *counts, Text(outcome.law.statement, style="dim"))
    console.print(table)
    for index, _ in enumerate(found[0][2]):
        of_law = [outcomes[index] for _, _, outcomes in found]
        for reason in dict.fromkeys(one.known for one in of_law if one.known):
            console.print(f"known violation of {of_law[0].law.name}: {reason}")
    console.print(
        f"Counts: out of {len(found)} recordings. To list every law of each recording, use --details."
    )


def _related(law: Law) -> str:
    return ", ".join(f"#{number}" for number in law.related)


def _print_statements(console: Output, laws: Sequence[Law]) -> None:
    table = console.table("law", "statement")
    for law in laws:
        table.add_row(law.name, law.statement, style="dim")
    console.print(table)


def in_words(first: Breach) -> str:
    who = f"request {printable_id(first.rid)}" if first.rid is not None else "batch"
    return (
        f"step {first.step}, {first.kind.words} (event {first.event}), {who}: "
        f"{first.counted} = {first.found}, expected {first.expected}"
    )
