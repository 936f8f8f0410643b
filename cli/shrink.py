"""specdiff shrink: the fewest requests and steps of a recording that still show a divergence."""

from __future__ import annotations

from pathlib import Path

import click

from ..replay.quantity import Quantity
from . import options
from .main import INTERRUPTED, SAME
from .parameters import Named


@click.command()
@click.argument("recording", type=Named(path_type=Path, readable=False))
@options.output("The recording to write (*.h5).")
@options.old("The path on the left.")
@options.fixed("The path on the right.")
@click.option(
    "--quantity",
    type=click.Choice([quantity.value for quantity in Quantity]),
    help="Whose first divergence to keep; default: the first quantity that differs.",
)
@click.option(
    "--law",
    metavar="NAME",
    help="Keep the first breach of this law instead, as `specdiff check` finds it.",
)
@click.option(
    "--path", default="observed", metavar="PATH", help="With --law: whose books; default: observed."
)
@options.repo
@click.option(
    "--keep-tokens",
    is_flag=True,
    help="Keep output tokens, request ids and the command line; else they are replaced.",
)
@options.force
def shrink(
    recording: Path,
    output: Path,
    old: str,
    fixed: str,
    quantity: str | None,
    law: str | None,
    path: str,
    repo: str | None,
    keep_tokens: bool,
    force: bool,
) -> int:
    """Shrink a recording to what shows where two paths part, or where a law is broken.

    Requests are left out first, then steps, until not one more can be: what is left still shows the first divergence of
    a quantity, in the same branch of the books and explained by the same fixes; with --law the first breach of that law, at
    the same kind of event and to the same side. Every value in it is what was recorded. Ctrl-C keeps the best so far. Exit
    code 125 where the paths do not part, or the law is not broken.
    """
    if law is None:
        options.only_for("--law", "path")
    else:
        options.only_for("a divergence (no --law)", "old", "fixed", "quantity")
    # imported late: torch comes with the engine, and `--help` must not wait for it
    from ..replay.shrink.shrink import shrink as shrink_to_parting
    from ..replay.shrink.shrink import shrink_to_breach
    from .inputs import check_output, one, save
    from .report_shrink import Telling, print_shrunk

    check_output(output, force=force, source=recording)
    whose = options.paths_of((old, fixed) if law is None else (path,), repo)
    wanted = None if quantity is None else Quantity(quantity)
    source, digest = one(recording)
    with Telling() as tell:
        if law is not None:
            made = shrink_to_breach(source, digest, whose[0], law, tell, keep_tokens=keep_tokens)
        else:
            sides = whose[0], whose[1]
            made = shrink_to_parting(source, digest, sides, wanted, tell, keep_tokens=keep_tokens)
    save(made.recording, output, force=force)
    print_shrunk(made, output)
    return INTERRUPTED if made.interrupted else SAME
