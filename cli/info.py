"""specdiff info: what a recording holds, who made it, and whether it is whole."""

from __future__ import annotations

import click

from ..recorders import hdf5
from .inputs import each
from .main import SAME
from .report_info import print_info


@click.command()
@click.argument("recording", nargs=-1, required=True, type=click.Path(readable=False))
def info(recording: tuple[str, ...]) -> int:
    """Say what a recording holds and who made it.

    RECORDING is a recording or a folder of them. Also said: whether it is whole, and what recording cost.
    """
    codes = each(recording, lambda path: print_info(path, hdf5.load(path)))
    return max(codes, default=SAME)
