"""specdiff info: what a recording holds, who made it, and whether it is whole."""

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
    """Say what a recording holds and who made it.

    RECORDING is a recording or a folder of them. Also said: whether it is whole, and what recording cost; of a folder,
    which schedulers of a run it holds, which it does not, and why.
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
