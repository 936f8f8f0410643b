"""specdiff recover: build recordings from the journals of a `specdiff record` that was killed."""

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
    """Build recordings from the journals in DIR.

    Builds one recording from each journal that no process writes to any more. Includes journals in other folders if
    `record --attach` started them on servers that were started with `record -o DIR`.

    Prints the path of each recording to stdout. A journal is deleted once its recording is in place and has been read
    back. A journal that is empty or still being written stays.

    Exit code: 128 if a journal stays for any other reason than that a process still writes to it.
    """
    from ..recorders.recover import NotRecovered  # imports h5py
    from ..recorders.recover import recover as build

    with working(f"{directory}"):
        outcomes = build(directory, force=force)
    print_outcomes(outcomes)
    if not outcomes:
        say(f"{directory}: no journals in this folder, nothing to recover.")
    broken = any(isinstance(outcome, NotRecovered) and not outcome.live for outcome in outcomes)
    return BROKEN if broken else SAME
