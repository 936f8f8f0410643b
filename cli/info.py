"""specdiff info: what a recording holds, who made it, and whether it is whole."""

from __future__ import annotations

import click

from ..recorders import hdf5
from .inputs import recordings
from .report_info import print_info


@click.command()
@click.argument("recording", nargs=-1, required=True, type=click.Path())
def info(recording: tuple[str, ...]) -> None:
    """Say what is in RECORDING (or in every recording of a folder), who made it and whether it is whole."""
    for path in recordings(recording):
        print_info(path, hdf5.load(path))
