"""specdiff record: run a command with the recorder in its sglang server, or control the recorder of a running one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..recorders.capture.choice import EVERY_ROW, ROWS
from ..recorders.capture.config import DEFAULT_BUFFER_MB, DURABILITIES
from .main import NO_VERDICT
from .parameters import Duration, Named, OneIn, Prefix, RunId
from .report_record import print_answer, print_left_out, print_outcomes, print_problems, say

_ACTS = ("start", "stop", "status", "flush")
_OF_A_START = frozenset(
    [
        "directory",
        "buffer_mb",
        "durability",
        "steps",
        "duration",
        "sample",
        "only_rid",
        "experts",
        "no_tokens",
        "ring",
        "all_ranks",
    ]
)


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "-o",
    "--output",
    "directory",
    metavar="DIR",
    type=Named(path_type=Path, file_okay=False),
    help="Folder for the recordings; created if missing.",
)
@click.option("--force", is_flag=True, help="Overwrite recordings of the same name.")
@click.option(
    "--buffer-mb",
    default=DEFAULT_BUFFER_MB,
    show_default=True,
    type=click.IntRange(min=1),
    help="Memory limit (MB) per scheduler for data waiting to be written, routed rows included. Beyond it, whole steps are "
    "dropped, counted and marked.",
)
@click.option(
    "--durability",
    type=click.Choice(DURABILITIES),
    default=DURABILITIES[0],
    show_default=True,
    help="What a SIGKILL may lose: the last 50 ms, or nothing from a finished step. "
    "'step' writes on the scheduler's thread (cost: docs/recorder.md).",
)
@click.option("--steps", type=click.IntRange(min=1), help="Stop recording after N decode steps.")
@click.option(
    "--duration",
    type=Duration(),
    help="Stop recording after this time, such as 90s or 5m; the server keeps running.",
)
@click.option(
    "--sample",
    type=OneIn(),
    default=1,
    help="Record one in N requests, chosen by a hash of the request id. Each is recorded in full.",
)
@click.option(
    "--only-rid",
    multiple=True,
    type=Prefix(),
    help="Record only requests whose id starts with PREFIX. May be repeated.",
)
@click.option(
    "--experts",
    type=click.Choice(ROWS),
    default=EVERY_ROW,
    show_default=True,
    help="Routed rows to keep. 'returned': those the server returned. 'tail': also those it cut off at the stop. 'full': all "
    "rows from 0 on, of every request; gathers a whole sequence on the scheduler's thread at each finish. 'none': only "
    "their number.",
)
@click.option(
    "--no-tokens",
    is_flag=True,
    help="Replace token ids by a filler, except those that can end a request.",
)
@click.option(
    "--ring",
    type=Duration(),
    help="Keep only the last seconds or minutes, such as 30s or 5m. They become a recording when the server ends in any way, "
    "on `--attach ... flush`, on SIGUSR1, and when a law is broken.",
)
@click.option(
    "--all-ranks",
    is_flag=True,
    help="Record every scheduler. The default is one per attention group, because the others keep the same books.",
)
@click.option(
    "--run-id",
    type=RunId(),
    help="Name of the run. Use the same name on every host of a multi-host server (docs/ranks.md).",
)
@click.option(
    "--paused",
    is_flag=True,
    help="Record nothing until `--attach ... start`, which then takes the other options given here, unless it names its own.",
)
@click.option(
    "--attach",
    metavar="PID|DIR",
    type=Named(readable=False),
    help="Control the recorders of a running server. COMMAND is start, stop, status or flush.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def record(
    context: click.Context,
    /,
    directory: Path | None,
    force: bool,
    attach: str | None,
    command: tuple[str, ...],
    **given: Any,
) -> int:
    """Run a command and record the sglang schedulers it starts.

    \b
    specdiff record -o runs -- python -m sglang.launch_server ...
    specdiff record -o runs --paused -- python -m sglang.launch_server ...
    specdiff record --attach runs --sample 1/16 --duration 60 start

    A start takes the options that the server was started with, unless it names its own.

    Each recorded scheduler becomes one recording, whose path is printed to stdout.

    Exit code: that of COMMAND, or 125 if COMMAND succeeded but nothing was recorded (with --paused: if nothing could have
    been recorded).
    """
    if attach is not None:
        return _attached(context, attach, directory, force, command, given)
    if directory is None:
        raise click.UsageError(
            "Missing option '-o' / '--output': name a folder for the recordings."
        )
    from ..recorders.record import record as run  # imports h5py

    done = run(
        directory, command, options=_options(given), force=force, say=say, run_id=given["run_id"]
    )
    print_outcomes(done.outcomes)
    print_problems(done.problems)
    print_left_out(done.left_out)
    meant = (given["paused"] or done.left_out) and not done.problems
    nothing = not (done.anything or meant)
    return NO_VERDICT if done.status == 0 and nothing else done.status


# The names of the options in `recorders.capture.config.Config`, and in its `Choice`.
_IN_CONFIG = {
    "buffer_mb": "buffer_mb",
    "durability": "durability",
    "paused": "paused",
    "steps": "steps",
    "duration": "seconds",
    "ring": "ring_s",
    "all_ranks": "all_ranks",
}
_IN_CHOICE = {"sample": "one_in", "only_rid": "only", "experts": "rows", "no_tokens": "tokens"}


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """The options in `given`, as `recorders.capture.config.with_options` expects them."""
    choice = {name: given[option] for option, name in _IN_CHOICE.items() if option in given}
    if "tokens" in choice:
        choice["tokens"] = not choice["tokens"]
    options = {name: given[option] for option, name in _IN_CONFIG.items() if option in given}
    return {**options, "choice": choice}


def _attached(
    context: click.Context,
    target: str,
    directory: Path | None,
    force: bool,
    command: tuple[str, ...],
    given: dict[str, Any],
) -> int:
    if len(command) != 1 or command[0] not in _ACTS:
        raise click.UsageError(
            f"--attach {target} {' '.join(command)}: expected one of {', '.join(_ACTS)}."
        )
    (act,) = command
    _refuse_idle(context, act)
    from ..recorders.attached import attached  # imports h5py

    # The others stay as the server was started with.
    named = {name: value for name, value in given.items() if _is_named(context, name)}
    done = attached(target, act, directory, _options(named), force=force)
    for answer in done.answers:
        print_answer(act, answer)
    print_outcomes(done.outcomes)
    return 0 if done.ok else NO_VERDICT


def _refuse_idle(context: click.Context, act: str) -> None:
    """Raise UsageError for an option that would have no effect."""
    idle = {
        "paused",
        "run_id",
        *(() if act in ("stop", "flush") else ("force",)),
        *(() if act == "start" else _OF_A_START),
    }
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in idle and _is_named(context, name):
            raise click.UsageError(
                f"{parameter.opts[-1]} has no effect with --attach ... {act}. Remove it."
            )


def _is_named(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is not ParameterSource.DEFAULT
