"""specdiff recover: turn the journals of a killed `specdiff record` into recordings."""

from __future__ import annotations

from pathlib import Path

import click

from .main import BROKEN, SAME
from .parameters import Named
from .report_record import print_outcomes, say
from .working import working


@click.command()
@click.argument("directory", metavar="DIR", type=Named(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite recordings of the same name.")
def recover(directory: Path, force: bool) -> int:
    """Build the recordings of every journal in DIR that no process writes to any more, and of those that
    `record --attach` began elsewhere, on servers that were started into DIR.

    \b
    Paths of the recordings go to stdout. A journal goes away once its recording is in place and has been
    read back; one that holds nothing, or is still being written, stays. Exit status 128 where one could
    not be read.
    """
    from ..recorders.recover import Kept  # imports h5py
    from ..recorders.recover import recover as build

    with working(f"{directory}"):
        outcomes = build(directory, force=force)
    print_outcomes(outcomes)
    if not outcomes:
        say(f"{directory}: no journals, nothing to recover")
    broken = any(isinstance(outcome, Kept) and not outcome.live for outcome in outcomes)
    return BROKEN if broken else SAME
