"""What `record` and `recover` tell: paths on stdout, everything else on stderr."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from ..recorders.errors import to_recover
from .main import complain

if TYPE_CHECKING:
    from ..recorders.recover import Kept, Outcome, Recovered
    from ..recorders.remote import Answer


def say(sentence: str) -> None:
    complain(sentence)


def print_outcomes(outcomes: Iterable[Outcome]) -> None:
    from ..recorders.recover import Recovered

    for outcome in outcomes:
        if isinstance(outcome, Recovered):
            _print_recovered(outcome)
        else:
            _print_kept(outcome)


def print_answer(act: str, answer: Answer) -> None:
    """To stderr, but for a status, which is what was asked for."""
    if answer.error is not None:
        say(f"process {answer.pid}: {answer.error}")
    elif act == "status":
        click.echo(f"process {answer.pid}: {_status(answer.said)}")
        if answer.kept is not None:
            say(f"kept {answer.journal}: {answer.kept}")
    elif "note" in answer.said:
        say(f"process {answer.pid} {answer.said['note']}")
    elif act == "start":
        say(f"process {answer.pid} records into {answer.journal}")
    elif act == "flush":
        say(f"process {answer.pid}: {answer.flushed}")


def _status(said: dict[str, Any]) -> str:
    if not said["recording"]:
        why = said.get("why")
        return "has the recorder in it, does not record" + (f": {why}" if why else "")
    parts = [f"records into {said['journal']}", f"{said['steps']} steps, {said['events']} events"]
    parts += [f"{said['dropped']} dropped, {said['waiting_bytes'] / 1e6:.1f} MB wait to be written"]
    if said["step_ns_p50"] is not None:
        times = (said[f"step_ns_{name}"] / 1e3 for name in ("p50", "p99", "max"))
        parts.append("a decode step costs {:.0f} us p50, {:.0f} p99, {:.0f} at most".format(*times))
    parts += [said["choice"]] if said["choice"] else []
    parts += [f"{said['exceptions']} exceptions of its own"] if said["exceptions"] else []
    parts += [f"the disk refuses: {said['disk']}"] if said["disk"] else []
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
        f"{outcome.path.name}: {outcome.num_steps} steps, {outcome.num_requests} requests, "
        f"{outcome.num_events} events, {outcome.num_dropped} dropped"
    )
    if outcome.damage:
        say(f"{outcome.path.name}: the journal's end was lost: {outcome.damage}")
    if outcome.damaged:
        say(f"what follows the damage was not read; the journal stays as {outcome.damaged}")
    if outcome.num_exceptions:
        say(
            f"{outcome.path.name}: the recorder failed {outcome.num_exceptions} times, "
            f"first with {outcome.first_exception}"
        )


def _print_kept(outcome: Kept) -> None:
    say(f"kept {outcome.journal}: {outcome.why}")
    if outcome.live:
        say(f"when that process has ended: {to_recover(outcome.journal.parent)}")
