"""specdiff export: a recording's books in a form that other tools read."""

from __future__ import annotations

from pathlib import Path

import click

from ..recorders.errors import RecordingError, UsageError
from ..replay.quantity import Quantity
from .inputs import check_output

_PATHS = ("observed", "old", "fixed")


@click.command()
@click.argument("recording", type=click.Path(path_type=Path, readable=False))
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "parquet"]),
    required=True,
    help="jsonl: a JSON object a line; parquet: needs pyarrow.",
)
@click.option(
    "-o",
    "--output",
    "output",
    required=True,
    metavar="OUT",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write.",
)
@click.option(
    "--path",
    "paths",
    multiple=True,
    metavar="PATH",
    help=f"A path whose books to write; default: {', '.join(_PATHS)}. May be repeated.",
)
@click.option(
    "--quantity",
    "quantities",
    multiple=True,
    type=click.Choice([quantity.value for quantity in Quantity]),
    help="Write only this quantity. May be repeated.",
)
@click.option(
    "--repo", metavar="PATH", help="The git clone that a path sglang@REV names a commit of."
)
@click.option("--force", is_flag=True, help="Overwrite OUT if it exists.")
def export(
    recording: Path,
    form: str,
    output: Path,
    paths: tuple[str, ...],
    quantities: tuple[str, ...],
    repo: str | None,
    force: bool,
) -> None:
    """Write the books of a recording as a table.

    One row for each place where a quantity has a value: event, step, kind, moment, rid, quantity, part, and for each
    path its value and whether it was captured. Null and captured is sglang's None; null and not captured is nothing.
    """
    if recording.is_dir():
        raise UsageError(f"{recording} is a folder; export wants one recording of it (*.h5).")
    check_output(output, force=force)
    # imported late: torch comes with the engine, and `--help` must not wait for it
    from ..recorders import hdf5
    from ..replay import spec
    from . import report_jsonl, report_parquet

    write = {"jsonl": report_jsonl.write, "parquet": report_parquet.write}[form]
    if form == "parquet":
        report_parquet.check_installed()
    from ..replay.flat import flat

    chosen = [spec.parse(text, repo) for text in dict.fromkeys(paths or _PATHS)]
    loaded = hdf5.load(recording)
    tables = flat(loaded, chosen, [Quantity(name) for name in quantities] or list(Quantity))
    try:
        write(loaded, tables, output)
    except OSError as error:
        raise RecordingError(f"{output}: cannot be written ({error}).") from error
    click.echo(str(output))
