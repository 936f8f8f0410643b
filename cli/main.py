"""The `specdiff` command. It runs a subcommand, and only here do errors become exit codes."""

from __future__ import annotations

import contextlib
import difflib
import gc
import importlib
import os
import sys
import traceback
from io import TextIOWrapper
from typing import NoReturn, TextIO

import click

from ..recorders.errors import (
    NoVerdictError,
    RecordingError,
    SpecdiffError,
    UsageError,
    printable,
)

# The codes that `git bisect run` uses, so that it never takes an error for "bad".
SAME, DIFFERS, NO_VERDICT, BROKEN, USAGE = 0, 1, 125, 128, 129
INTERRUPTED, _PIPE_CLOSED = 130, 141

_COMMANDS = (
    "record",
    "recover",
    "replay",
    "check",
    "bisect",
    "history",
    "reconcile",
    "shrink",
    "redact",
    "export",
    "info",
    "show",
    "paths",
)
_CODES: tuple[tuple[type[Exception], int], ...] = (
    (click.ClickException, USAGE),
    (RecordingError, BROKEN),
    (UsageError, USAGE),
    (NoVerdictError, NO_VERDICT),
)


class _LazyGroup(click.Group):
    """Import a command only when it runs, so that `--help` does not wait for torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f".{name}", __package__), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint} The commands are {', '.join(_COMMANDS)}.")
        return super().resolve_command(ctx, args)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="specdiff")
def cli() -> None:
    """Record, replay and check the accounting of SGLang's speculative decoding v2.

    \b
    Make recordings:    record, recover
    Compare and check:  replay, check, reconcile
    Find a change:      bisect, history
    Pass on a finding:  shrink, redact, export
    Look inside:        info, show, paths

    Exit codes: 0 same, 1 differs, 125 no verdict, 128 broken input, 129 usage
    error. `specdiff COMMAND --help` explains a command.
    """


def run(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code, even if its output cannot be written."""
    try:
        # Not cli.main: click exits with 1 if the pipe is closed, and 1 means "differs".
        given = sys.argv[1:] if arguments is None else list(arguments)
        with cli.make_context("specdiff", given) as context:
            code = cli.invoke(context)
        if sys.stdout is not None:  # None if the caller closed it
            sys.stdout.flush()
        return code if isinstance(code, int) else SAME
    except click.exceptions.Exit as leaving:  # --help, --version
        return leaving.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        return _PIPE_CLOSED
    except Exception as error:  # noqa: BLE001 - Python would exit with 1: "differs"
        _tell(error)
        return next((code for kind, code in _CODES if isinstance(error, kind)), BROKEN)
    finally:
        _drop_unwritten(sys.stdout)
        _drop_unwritten(sys.stderr)


def complain(message: str) -> None:
    """Print a message to stderr. If stderr cannot be written, only the exit code is left, so nothing is raised."""
    said = "\n".join(map(printable, message.split("\n")))  # it may quote a request id or a file
    with contextlib.suppress(OSError):
        click.echo(f"specdiff: {said}", err=True)


def _tell(error: Exception) -> None:
    with contextlib.suppress(Exception):  # as in `complain`; click fails if stderr is closed
        if isinstance(error, click.ClickException):
            error.show()
        elif isinstance(error, SpecdiffError):
            complain(str(error))
        elif isinstance(error, OSError):  # the machine's fault: a traceback would not help
            complain(f"{error}.")
        elif _lacks_memory(error):
            said = f" ({error})" if str(error) else ""
            complain(
                f"not enough memory{said}. Use a machine with more memory, compare a single --quantity, or record "
                "less with --sample, --steps or --ring (docs/recorder.md)."
            )
        else:
            click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
            complain("this is a bug in specdiff. Please report it with the lines above.")


def _lacks_memory(error: Exception) -> bool:
    """Whether memory ran out. torch raises a plain RuntimeError in that case."""
    is_torch = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return is_torch or isinstance(error, MemoryError)


def _drop_unwritten(stream: TextIO | None) -> None:
    """Discard output that cannot be written. The interpreter would try again at exit and exit with 120, which git
    takes for "bad"."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _say_what_it_can(stream: TextIO | None) -> None:
    """Escape characters that the stream's encoding lacks, as Python does on stderr.

    A request id or file name that cannot be printed as it is must not cost the verdict."""
    if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors="backslashreplace")


def main() -> NoReturn:
    _say_what_it_can(sys.stdout)
    # A command creates millions of objects, few of them in reference cycles, and then exits: collect rarely.
    gc.set_threshold(200_000)
    sys.exit(run())
