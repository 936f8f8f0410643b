"""specdiff shrink: the fewest requests and steps of a recording that still show a divergence."""

from __future__ import annotations

from pathlib import Path

import click

from ..replay.quantity import Quantity
from .main import INTERRUPTED, SAME


@click.command()
@click.argument("recording", type=click.Path(path_type=Path, readable=False))
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The recording to write (*.h5).",
)
@click.option(
    "--old", default="old", show_default=True, metavar="PATH", help="The path on the left."
)
@click.option(
    "--fixed", default="fixed", show_default=True, metavar="PATH", help="The path on the right."
)
@click.option(
    "--quantity",
    type=click.Choice([quantity.value for quantity in Quantity]),
    help="Whose first divergence to keep; default: the first quantity that differs.",
)
@click.option(
    "--repo", metavar="PATH", help="The git clone that a path sglang@REV names a commit of."
)
@click.option(
    "--keep-tokens",
    is_flag=True,
    help="Keep output tokens, request ids and the command line; else they are replaced.",
)
@click.option("--force", is_flag=True, help="Overwrite FILE.")
def shrink(
    recording: Path,
    output: Path,
    old: str,
    fixed: str,
    quantity: str | None,
    repo: str | None,
    keep_tokens: bool,
    force: bool,
) -> int:
    """Shrink a recording to what shows where two paths part.

    Requests are left out first, then steps, until not one more can be: what is left still shows the first divergence of
    a quantity, in the same branch of the books and explained by the same fixes. Every value in it is what was recorded.
    Ctrl-C keeps the best so far. Exit code 125 where the paths do not part.
    """
    # imported late: torch comes with the engine, and `--help` must not wait for it
    from ..recorders import hdf5
    from ..replay import spec
    from ..replay.shrink.shrink import shrink as shrink_recording
    from .inputs import check_output, one
    from .report_shrink import Telling, print_shrunk

    check_output(output, force=force)
    paths = spec.parse(old, repo), spec.parse(fixed, repo)
    wanted = None if quantity is None else Quantity(quantity)
    source, digest = one(recording)
    with Telling() as tell:
        made = shrink_recording(source, digest, paths, wanted, tell, keep_tokens=keep_tokens)
    hdf5.save(made.recording, output, force=force)
    print_shrunk(made, output)
    return INTERRUPTED if made.interrupted else SAME
