"""specdiff bisect: find the release or commit that changed the books."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..replay.quantity import Quantity
from . import law_plays, options
from .inputs import check_output, one
from .main import DIFFERS, SAME
from .parameters import Named

if TYPE_CHECKING:
    from ..replay import spec


@click.command()
@click.argument("recording", type=Named(readable=False))
@click.option(
    "--good", required=True, metavar="PATH", help="Good end: sglang==VERSION or sglang@REV."
)
@click.option(
    "--bad", required=True, metavar="PATH", help="Bad end; older or newer than the good one."
)
@options.quantities("Compare only this quantity.")
@click.option(
    "--against",
    metavar="PATH",
    help="A version is good if it equals this path (observed, expected, ...); default: the good end.",
)
@options.repo
@click.option(
    "--skip",
    multiple=True,
    metavar="REV",
    help="Commit or release to skip. May be repeated.",
)
@click.option(
    "--log",
    type=Named(dir_okay=False, path_type=Path),
    help="File to log each finding to; for commits, in the format of `git bisect replay`.",
)
@law_plays.by_law(
    "A version is good if its scheduler keeps this law when it plays RECORDING again."
)
@options.form
def bisect(
    recording: str,
    good: str,
    bad: str,
    quantities: tuple[str, ...],
    against: str | None,
    law: str | None,
    keep: Path | None,
    repo: str | None,
    skip: tuple[str, ...],
    log: Path | None,
    form: str,
) -> int:
    """Find the release or commit that changed the books.

    The result is the first version whose books of RECORDING differ from those of the good end. Between two releases,
    every release is replayed, so changes that were reverted are found too. Between two commits, git halves the history,
    which assumes a single change.

    With --law, the whole scheduler of each version plays the recording again on this CPU, which takes about ten seconds
    per version. RECORDING can then also be a scenario (*.toml).

    Exit code: 1 if a change was found, 0 if the two ends agree (`specdiff history` also lists changes in between).
    """
    scenario = Path(recording)
    law_plays.check_options(recording, law, "quantities", "against")
    if law is not None:
        ends = options.paths_of((good, bad), repo)
        return _by_law(scenario, law, ends, repo, skip, log, keep, form)
    # imported late: the engine imports torch, and `--help` must not wait for it
    from ..replay.lift.worker_pool import MAX_PREFETCHED, worker_pool_of
    from ..replay.spec import is_release

    texts = (good, bad) if against is None else (good, bad, against)
    parsed = options.paths_of(texts, repo)
    wanted = [Quantity(name) for name in quantities] or None
    # A search continued from narrower ends must still compare with the original good end.
    asked: tuple[str, ...] = ("--against", against or good)
    asked += () if repo is None else ("--repo", repo)
    asked += tuple(word for name in quantities for word in ("--quantity", name))
    reference = parsed[0] if against is None else parsed[2]
    jobs = MAX_PREFETCHED if is_release(parsed[0]) else 1  # a search over commits cannot run ahead
    with worker_pool_of(Path(recording), wanted or tuple(Quantity), [reference], jobs) as workers:
        from ..replay.bisect.bisection import bisect as find
        from ..replay.columns.shared import Columns
        from . import report_bisect
        from .progress_bisect import Narrowing

        first, last = map(options.end, parsed[:2])
        if log is not None:
            check_output(log, force=None)
        held, _ = one(Path(recording), workers)
        with Narrowing(recording, first, last, asked, log) as narrowing:
            found = find(
                Columns(held, workers),
                first,
                last,
                quantities=wanted,
                reference=reference,
                skip=skip,
                report=narrowing,
            )
    report = report_bisect.print_json if form == "json" else report_bisect.print_table
    report(recording, found)
    return SAME if found.inside is None else DIFFERS


def _by_law(
    scenario: Path,
    law: str,
    ends: Sequence[spec.Path],
    repo: str | None,
    skip: tuple[str, ...],
    log: Path | None,
    keep: Path | None,
    form: str,
) -> int:
    from ..replay.bisect.by_law import bisect_by_law
    from ..replay.laws.check_one import law_of
    from . import report_law_plays
    from .progress_bisect import Narrowing

    wanted = law_of(law)
    good, bad = map(options.end, ends)
    if log is not None:
        check_output(log, force=None)
    asked = ("--law", law, *(() if repo is None else ("--repo", repo)))
    with (
        law_plays.plays_of(scenario, keep) as them,
        Narrowing(str(scenario), good, bad, asked, log) as narrowing,
    ):
        found = bisect_by_law(them, wanted, good, bad, skip=skip, report=narrowing)
    if form == "json":
        report_law_plays.print_bisection_json(str(scenario), found)
    else:
        report_law_plays.print_bisection(str(scenario), found)
    return SAME if found.search.change is None else DIFFERS
