"""specdiff info: what a recording contains, how it was made, and whether it is complete."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..recorders import hdf5
from ..recorders.runs import Member, member_of, runs
from .inputs import each, manifests
from .main import SAME
from .parameters import Named
from .report_info import print_info
from .report_runs import print_runs


@click.command()
@click.argument("recording", nargs=-1, required=True, type=Named(readable=False))
def info(recording: tuple[str, ...]) -> int:
    """Show what a recording contains and how it was made.

    RECORDING is a recording or a folder of recordings. The report includes whether the recording is complete and the
    overhead of recording. For a folder, it also lists which schedulers of each run were recorded, which were not, and
    why.
    """
    members: list[Member] = []

    def show(path: Path) -> None:
        found = hdf5.load(path)
        print_info(path, found)
        members.append(member_of(path, found))

    codes = each(recording, show)
    folders = [Path(name) for name in recording if os.path.isdir(name)]  # never raises
    told = [found for folder in folders for found in manifests(folder, codes)]
    print_runs(runs([member for member in members if member.path.parent in folders], told))
    return max(codes, default=SAME)
