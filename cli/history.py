"""specdiff history: list every version in which the books of a recording changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..replay.lift.releases import RELEASES
from ..replay.quantity import Quantity
from . import law_plays, options
from .inputs import one
from .main import DIFFERS, NO_VERDICT, SAME, complain
from .parameters import Named

if TYPE_CHECKING:
    from ..replay import spec


@click.command()
@click.argument("recording", type=Named(readable=False))
@click.option(
    "--from",
    "oldest",
    default=f"sglang=={RELEASES[0]}",
    show_default=True,
    metavar="PATH",
    help="Oldest version: sglang==VERSION or sglang@REV.",
)
@click.option(
    "--to",
    "newest",
    default=f"sglang=={RELEASES[-1]}",
    show_default=True,
    metavar="PATH",
    help="Newest version.",
)
@options.quantities("Compare only this quantity.")
@options.repo
@law_plays.by_law("Check this law instead, while each version's scheduler plays RECORDING again.")
@options.form
def history(
    recording: str,
    oldest: str,
    newest: str,
    quantities: tuple[str, ...],
    repo: str | None,
    law: str | None,
    keep: Path | None,
    form: str,
) -> int:
    """List how the books changed from version to version.

    Versions are listed oldest first, each compared with the one before it. The ends are two releases, or two commits of a
    clone; between commits, first parents are followed and only commits that touch the runtime are listed. Versions with
    the same code have the same books.

    With --law, the whole scheduler of each version plays the recording again on this CPU, which takes about ten seconds
    per version. RECORDING can then also be a scenario (*.toml).

    Exit code: 1 if the books changed or, with --law, a version breaks the law; 125 if nothing could be compared or
    judged, or nothing of a quantity named with --quantity.
    """
    law_plays.check_options(recording, law, "quantities")
    if law is not None:
        both = options.paths_of((oldest, newest), repo)
        return _by_law(Path(recording), law, both, keep, form)
    # imported late: the engine imports torch, and `--help` must not wait for it
    from ..replay.lift.worker_pool import MAX_PREFETCHED, worker_pool_of

    ends = options.paths_of((oldest, newest), repo)
    wanted = [Quantity(name) for name in quantities] or list(Quantity)
    with worker_pool_of(Path(recording), wanted, ends[:1], MAX_PREFETCHED) as workers:
        from ..replay.columns.shared import Columns
        from ..replay.history import VersionResult, versions
        from ..replay.history import history as tell
        from . import report_history

        first, last = map(options.end, ends)
        paths = versions(first, last)
        held, _ = one(Path(recording), workers)
        num_done = 0

        def report(version: VersionResult) -> None:
            nonlocal num_done
            num_done += 1
            click.echo(f"{num_done} of {len(paths)}  {version.path} {version.summary}", err=True)

        found = tell(Columns(held, workers), paths, wanted, report)
    show = report_history.print_json if form == "json" else report_history.print_table
    show(recording, found)
    if any(version.changed for version in found):
        return DIFFERS
    compared = {quantity for version in found for quantity in version.compared}
    if silent := [name for name in quantities if Quantity(name) not in compared]:
        complain(f"no values of {', '.join(silent)} could be compared.")
    return SAME if compared and not silent else NO_VERDICT


def _by_law(
    scenario: Path,
    law: str,
    ends: Sequence[spec.Path],
    keep: Path | None,
    form: str,
) -> int:
    from ..replay.bisect.by_law import history_by_law
    from ..replay.bisect.judge import Finding, JudgedCandidate
    from ..replay.history import versions
    from ..replay.laws.check_one import law_of
    from . import report_law_plays

    wanted, paths = law_of(law), versions(*map(options.end, ends))
    num_done = 0

    def report(one: JudgedCandidate) -> None:
        nonlocal num_done
        num_done += 1
        click.echo(
            f"{num_done} of {len(paths)}  {one.path} {report_law_plays.state(one)}", err=True
        )

    with law_plays.plays_of(scenario, keep) as them:
        tested = history_by_law(them, wanted, paths, report)
    if form == "json":
        report_law_plays.print_history_json(str(scenario), wanted, tested)
    else:
        report_law_plays.print_history(str(scenario), wanted, tested)
    found = {one.finding for one in tested}
    return DIFFERS if Finding.BAD in found else SAME if Finding.GOOD in found else NO_VERDICT
