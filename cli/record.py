"""specdiff record: run a command with the recorder in its sglang server."""

from __future__ import annotations

from pathlib import Path

import click

from ..recorders.capture.config import DEFAULT_BUFFER_MB, DURABILITIES
from .report_record import print_outcomes, print_problems, say

_NO_VERDICT = 125


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "-o",
    "--output",
    "directory",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the recordings; made if it is not there.",
)
@click.option("--force", is_flag=True, help="Overwrite a recording of the same name.")
@click.option(
    "--buffer-mb",
    default=DEFAULT_BUFFER_MB,
    show_default=True,
    type=click.IntRange(min=1),
    help="How much may wait to be written, per scheduler, before events are dropped (and counted).",
)
@click.option(
    "--durability",
    type=click.Choice(DURABILITIES),
    default=DURABILITIES[0],
    show_default=True,
    help="What a SIGKILL may cost: the last 50 ms, or nothing that was handed over by the end of a step. "
    "'step' writes on the scheduler's thread (docs/recorder.md has the cost).",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def record(
    directory: Path, force: bool, buffer_mb: int, durability: str, command: tuple[str, ...]
) -> int:
    """Run COMMAND and record every sglang scheduler it starts, one recording each.

    \b
    specdiff record -o runs -- python -m sglang.launch_server --model-path ...
    Paths of the recordings go to stdout. The exit status is the command's; 125 where the command
    ended well but nothing was recorded.
    """
    from ..recorders.record import record as run  # imports h5py

    done = run(directory, command, buffer_mb=buffer_mb, durability=durability, force=force, say=say)
    print_outcomes(done.outcomes)
    print_problems(done.problems)
    return _NO_VERDICT if done.status == 0 and not done.anything else done.status
