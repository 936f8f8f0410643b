"""Output of `record` and `recover`: paths on stdout, everything else on stderr."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from ..recorders.errors import to_recover
from .main import complain

if TYPE_CHECKING:
    from ..recorders.recover import NotRecovered, Recovered, RecoveryOutcome
    from ..recorders.remote import ControlAnswer


def say(sentence: str) -> None:
    complain(sentence)


def print_outcomes(outcomes: Iterable[RecoveryOutcome]) -> None:
    from ..recorders.recover import Recovered

    for outcome in outcomes:
        if isinstance(outcome, Recovered):
            _print_recovered(outcome)
        else:
            _print_not_recovered(outcome)


def print_answer(act: str, answer: ControlAnswer) -> None:
    """Print the answer of a recorder to stderr. A status goes to stdout, because it is the requested result."""
    if answer.error is not None:
        say(f"process {answer.pid}: {answer.error}")
    elif act == "status":
        click.echo(f"process {answer.pid}: {_status(answer.fields)}")
        if answer.kept is not None:
            say(f"kept {answer.journal}: {answer.kept}")
    elif "note" in answer.fields:
        say(f"process {answer.pid} {answer.fields['note']}")
    elif act == "start":
        # Some of the options may come from the server's start.
        options = answer.fields.get("options")
        say(
            f"process {answer.pid} is recording to {answer.journal}"
            + (f", with {options}" if options else "")
        )
    elif act == "flush":
        say(f"process {answer.pid}: {answer.flushed}")


def _status(fields: dict[str, Any]) -> str:
    if not fields["recording"]:
        why = fields.get("why")
        return "recorder loaded, not recording" + (f": {why}" if why else "")
    parts = [
        f"recording to {fields['journal']}",
        f"{fields['steps']} decode steps, {fields['events']} events",
    ]
    parts += [
        f"{fields['dropped']} dropped, {fields['waiting_bytes'] / 1e6:.1f} MB waiting to be written"
    ]
    if fields["step_ns_p50"] is not None:
        times = (fields[f"step_ns_{name}"] / 1e3 for name in ("p50", "p99", "max"))
        parts.append(
            "overhead per decode step {:.0f} us p50, {:.0f} us p99, {:.0f} us max".format(*times)
        )
    parts += [fields["choice"]] if fields["choice"] else []
    parts += [f"{fields['exceptions']} exceptions in the recorder"] if fields["exceptions"] else []
    parts += [f"disk error: {fields['disk']}"] if fields["disk"] else []
    return "; ".join(parts)


def print_problems(problems: Iterable[str]) -> None:
    for problem in problems:
        say(f"not recorded: {problem}.")


def print_left_out(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        say(f"left out: {sentence}")


def _print_recovered(outcome: Recovered) -> None:
    click.echo(str(outcome.path))
    say(
        f"{outcome.path.name}: {outcome.num_launches} launches, {outcome.num_requests} requests, "
        f"{outcome.num_events} events, {outcome.num_dropped} dropped"
    )
    if outcome.damage:
        say(f"{outcome.path.name}: the end of the journal was lost: {outcome.damage}")
    if outcome.damaged:
        say(f"records after the damage were not read; the journal is kept as {outcome.damaged}")
    if outcome.num_exceptions:
        say(
            f"{outcome.path.name}: the recorder failed {outcome.num_exceptions} times, "
            f"first with {outcome.first_exception}"
        )


def _print_not_recovered(outcome: NotRecovered) -> None:
    say(f"kept {outcome.journal}: {outcome.why}")
    if outcome.live:
        say(f"when that process has ended, run `{to_recover(outcome.journal.parent)}`")
