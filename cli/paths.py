"""specdiff paths: which accounting paths there are, and what a lifted one is made of."""

from __future__ import annotations

import click

from ..recorders.errors import UsageError
from . import options


@click.command()
@click.option("--explain", metavar="PATH", help="Show where each role of this path was found.")
@options.repo
def paths(explain: str | None, repo: str | None) -> None:
    """List the accounting paths and what each release's books are.

    The built-in paths, the five fixes, and the sglang releases in the cache.
    Which fixes a release's books equal is found by replaying both over the bundled recordings.
    """
    from ..replay import spec  # imported late, as everything here: `--help` must not wait
    from ..replay.lift import catalog
    from .inputs import bundled
    from .report_paths import print_explained, print_paths

    if explain is not None:
        (path,) = options.paths_of([explain], repo)
        if not isinstance(path, spec.Lifted):
            raise UsageError(f"--explain {explain!r}: only paths lifted out of an sglang source.")
        print_explained(catalog.explained(path))
        return
    options.only_for("--explain sglang@REV", "repo")
    found = sorted(bundled().glob("*.h5"))
    print_paths(catalog.releases(found), len(found))
