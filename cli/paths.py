"""specdiff paths: list the accounting paths, or show what a lifted path consists of."""

from __future__ import annotations

import click

from ..recorders.errors import UsageError
from . import options


@click.command()
@click.option(
    "--explain",
    metavar="PATH",
    help="Show where in the sglang source each role of this path was found.",
)
@options.repo
def paths(explain: str | None, repo: str | None) -> None:
    """List the accounting paths and the releases they match.

    Lists the built-in paths, the five fixes, and the sglang releases in the cache. Each release is shown with the set of
    fixes whose books equal its own, found by replaying both over the bundled recordings.
    """
    from ..replay import spec  # imported late, like the rest: `--help` must not wait
    from ..replay.lift import catalog
    from .inputs import bundled
    from .report_paths import print_explained, print_paths

    if explain is not None:
        (path,) = options.paths_of([explain], repo)
        if not isinstance(path, spec.Lifted):
            raise UsageError(
                f"--explain {explain!r}: not lifted from sglang source. Name a release, a commit or a source tree."
            )
        print_explained(catalog.explained(path))
        return
    options.only_for("with --explain sglang@REV", "repo")
    found = sorted(bundled().glob("*.h5"))
    print_paths(catalog.releases(found), len(found))
