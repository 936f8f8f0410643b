"""specdiff history: every version at which the books for one recording changed."""

from __future__ import annotations

from pathlib import Path

import click

from ..replay.quantity import Quantity
from . import options
from .inputs import one
from .main import DIFFERS, NO_VERDICT, SAME, complain
from .parameters import Named


@click.command()
@click.argument("recording", type=Named(readable=False))
@click.option(
    "--from",
    "oldest",
    default="sglang==0.5.9",
    show_default=True,
    metavar="PATH",
    help="The oldest version: sglang==VERSION or sglang@REV.",
)
@click.option(
    "--to",
    "newest",
    default="sglang==0.5.23",
    show_default=True,
    metavar="PATH",
    help="The newest version.",
)
@options.quantities("Only this quantity.")
@options.repo
@options.form
def history(
    recording: str,
    oldest: str,
    newest: str,
    quantities: tuple[str, ...],
    repo: str | None,
    form: str,
) -> int:
    """Tell how the books for one RECORDING changed from version to version, oldest first.

    The ends are two releases, or two commits of a clone (then along first parents, those that touch the runtime).
    Versions of one code have the same books. Exit code 1 where the books changed at all, 125 where nothing could be compared, or nothing of a quantity that was
    asked for by name.
    """
    # imported late: torch comes with the engine, and `--help` must not wait for it
    from ..replay.lift.crew import AHEAD, crew_of

    ends = options.paths_of((oldest, newest), repo)
    wanted = [Quantity(name) for name in quantities] or list(Quantity)
    with crew_of(Path(recording), wanted, ends[:1], AHEAD) as crew:
        from ..replay.columns.shared import Columns
        from ..replay.history import Chapter, versions
        from ..replay.history import history as tell
        from . import report_history
        from .report_bisect import end

        first, last = (end(path) for path in ends)
        paths = versions(first, last)
        held, _ = one(Path(recording), crew)
        told = 0

        def report(chapter: Chapter) -> None:
            nonlocal told
            told += 1
            click.echo(f"{told} of {len(paths)}  {chapter.path} {chapter.says}", err=True)

        chapters = tell(Columns(held, crew), paths, wanted, report)
    show = report_history.print_json if form == "json" else report_history.print_table
    show(recording, chapters)
    if any(chapter.changed for chapter in chapters):
        return DIFFERS
    compared = {quantity for chapter in chapters for quantity in chapter.compared}
    if silent := [name for name in quantities if Quantity(name) not in compared]:
        complain(f"nothing could be compared of {', '.join(silent)}")
    return SAME if compared and not silent else NO_VERDICT
