"""specdiff show: the timeline of one request."""

from __future__ import annotations

from pathlib import Path

import click

from ..recorders.errors import UsageError
from . import options
from .parameters import Named
from .working import working


@click.command()
@click.argument("recording", type=Named(path_type=Path, readable=False))
@click.option(
    "--request",
    "rid",
    required=True,
    metavar="RID",
    help="Id of the request, whole or as reports print it.",
)
@click.option(
    "--path",
    "paths",
    multiple=True,
    metavar="PATH",
    help="Path to show; default: old, expected and observed. May be repeated.",
)
@options.repo
def show(recording: Path, rid: str, paths: tuple[str, ...], repo: str | None) -> None:
    """Show one request's timeline under several paths.

    Lists every event of the request and its committed length after it. 16+1 means 16 settled slots and 1 slot claimed
    for a result still to come.

    Some events show more. A finish shows which routed and indexer rows each path collects. A release shows the length
    that it uses. A turn of a streaming session shows what the session keeps from it or hands to it. The rules of the
    five fixes do not compute releases and sessions; name a lifted path for those, such as --path sglang==0.5.14.

    Lines on which the paths differ are marked, unless only claims differ. Not shown: allocated lengths, counters,
    histograms, sums, and what each path decides at a finish.
    """
    # imported late: the engine imports torch, and `--help` must not wait for it
    from ..recorders import hdf5
    from ..replay.timeline import timelines
    from .report_show import print_timelines

    if recording.is_dir():
        raise UsageError(f"{recording} is a folder. Name one recording in it (*.h5).")
    wanted = options.paths_of(paths or ("old", "expected", "observed"), repo)
    with working(f"{recording}"):
        found = timelines(hdf5.load(recording), rid, wanted)
    print_timelines(found)
