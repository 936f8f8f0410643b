"""What `record` and `recover` tell: paths on stdout, everything else on stderr."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..recorders.recover import Kept, Outcome, Recovered


def say(sentence: str) -> None:
    click.echo(f"specdiff: {sentence}", err=True)


def print_outcomes(outcomes: Iterable[Outcome]) -> None:
    from ..recorders.recover import Recovered

    for outcome in outcomes:
        if isinstance(outcome, Recovered):
            _print_recovered(outcome)
        else:
            _print_kept(outcome)


def print_problems(problems: Iterable[str]) -> None:
    for problem in problems:
        say(f"not recorded: {problem}.")


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
        say(f"when that process has ended: specdiff recover {outcome.journal.parent}")
