"""The `specdiff` command: finds the subcommand, and is the one place where errors become exit codes."""

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

from ..recorders.errors import NoVerdictError, RecordingError, SpecdiffError, UsageError

# git's own codes, so that no mistake ever reads as "bad" under `git bisect run`
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
    """Imports a command when it is asked for: `--help` must not wait for torch."""

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
            ctx.fail(f"No such command {args[0]!r}.{hint} There are {', '.join(_COMMANDS)}.")
        return super().resolve_command(ctx, args)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="specdiff")
def cli() -> None:
    """Flight recorder and court for the books of SGLang's speculative decoding v2.

    \b
    record and recover make recordings; replay compares two paths, check holds one against the laws; bisect and
    history find the release or commit that changed the books; reconcile holds what clients were told against them;
    shrink keeps what shows a divergence, redact makes a recording that may be passed on, export writes a test or a
    table; info and show read recordings; paths lists what they can be replayed under.
    Exit codes: 0 same, 1 differs, 125 no verdict, 128 broken input, 129 usage.
    """


def run(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code, whether or not what it says can be written."""
    try:
        # not cli.main: click's own exit code for a closed pipe is 1, which reads as "differs"
        given = sys.argv[1:] if arguments is None else list(arguments)
        with cli.make_context("specdiff", given) as context:
            code = cli.invoke(context)
        if sys.stdout is not None:  # as it is where somebody closed it
            sys.stdout.flush()
        return code if isinstance(code, int) else SAME
    except click.exceptions.Exit as leaving:  # --help, --version
        return leaving.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        return _PIPE_CLOSED
    except Exception as error:  # noqa: BLE001 - exit 1 would read as "differs"
        _tell(error)
        return next((code for kind, code in _CODES if isinstance(error, kind)), BROKEN)
    finally:
        _drop_unwritten(sys.stdout)
        _drop_unwritten(sys.stderr)


def complain(message: str) -> None:
    """On stderr. Where that cannot be written the exit code is all that is left, so nothing is raised."""
    with contextlib.suppress(OSError):
        click.echo(f"specdiff: {message}", err=True)


def _tell(error: Exception) -> None:
    with contextlib.suppress(Exception):  # as in `complain`; click does not expect a closed stderr
        if isinstance(error, click.ClickException):
            error.show()
        elif isinstance(error, SpecdiffError):
            complain(str(error))
        elif isinstance(error, OSError):  # the machine's fault, which no traceback explains
            complain(f"{error}.")
        elif _lacks_memory(error):
            said = f" ({error})" if str(error) else ""
            complain(
                f"there is not enough memory for this{said}. Take a machine with more, ask for one --quantity, "
                "or record less: --sample, --steps, --ring (docs/recorder.md, How long a recording may be)."
            )
        else:
            click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
            complain("that is a bug in specdiff; please report it with the lines above.")


def _lacks_memory(error: Exception) -> bool:
    """torch has no exception of its own for it."""
    told = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return told or isinstance(error, MemoryError)


def _drop_unwritten(stream: TextIO | None) -> None:
    """The interpreter would try once more at exit, and then exit 120, which git takes for "bad"."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _say_what_it_can(stream: TextIO | None) -> None:
    """Where names are not all of its encoding (ASCII, Latin-1; a file name of other bytes) they are escaped, as on stderr:
    a character that cannot be printed is no reason to have no verdict."""
    if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors="backslashreplace")


def main() -> NoReturn:
    _say_what_it_can(sys.stdout)
    # A command makes millions of objects, few of them garbage in circles, and ends: look for those seldom.
    gc.set_threshold(200_000)
    sys.exit(run())
