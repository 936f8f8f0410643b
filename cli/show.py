"""specdiff show: one request's life as a timeline."""

from __future__ import annotations

from pathlib import Path

import click

from ..recorders.errors import UsageError
from . import options
from .parameters import Named
from .working import working


@click.command()
@click.argument("recording", type=Named(path_type=Path, readable=False))
@click.option("--request", "rid", required=True, metavar="RID", help="The request, by its id.")
@click.option(
    "--path",
    "paths",
    multiple=True,
    metavar="PATH",
    help="A path to show; default: old, fixed and observed.",
)
@options.repo
def show(recording: Path, rid: str, paths: tuple[str, ...], repo: str | None) -> None:
    """Show one request's life under several paths.

    Every event that concerns it, and its committed length after each: 16+1 reads 16 settled, 1 slot claimed for a
    result that is still to come. A finish also says which routed and indexer rows each path collects, a release the
    length that it goes by, a turn of a streaming session what the session keeps of it or gives to it (the five fixes say
    nothing about these two: --path sglang==0.5.14). Lines where any of these part are marked; where only claims do, they are
    not. Not shown are allocated lengths, counters and histograms, sums, and what each path decides of a finish.
    """
    # imported late: torch comes with the engine, and `--help` must not wait for it
    from ..recorders import hdf5
    from ..replay.timeline import lives
    from .report_show import print_lives

    if recording.is_dir():
        raise UsageError(f"{recording} is a folder; show wants one recording of it (*.h5).")
    wanted = options.paths_of(paths or ("old", "fixed", "observed"), repo)
    with working(f"{recording}"):
        found = lives(hdf5.load(recording), rid, wanted)
    print_lives(found)
