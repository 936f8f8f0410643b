"""Shared code of the commands in which an sglang plays a recording or a scenario: `bisect --law` and `history --law`.

`export` and `shrink` use its signal handling.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..recorders.errors import RecordingError, UsageError
from . import options
from .parameters import Named

if TYPE_CHECKING:
    from ..replay.bisect.plays import Plays

F = TypeVar("F", bound=Callable[..., Any])


def by_law(says: str) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        keep = click.option(
            "--keep",
            type=Named(path_type=Path),
            metavar="DIR",
            help="With --law: new folder in which to keep what each version records.",
        )
        return click.option("--law", metavar="NAME", help=says)(keep(command))

    return decorate


def check_options(source: str, law: str | None, *books: str) -> None:
    """Raises UsageError. `books`: parameters that have no meaning with --law."""
    if law is None:
        options.only_for("with --law", "keep")
        if source.endswith(".toml"):
            raise UsageError(
                f"{source}: a scenario has no recorded books to compare. Name a law to check as it is played: --law NAME."
            )
    else:
        options.only_for("without --law", *books)


@contextmanager
def plays_of(scenario: Path, keep: Path | None) -> Iterator[Plays]:
    """Prepare to play `scenario` with several versions of sglang. `keep`: folder for what they record, or None.

    Raises RecordingError if the file cannot be read or the folder cannot be created, NoVerdictError if the file is a
    recording that cannot be played again or if nothing can be played on this machine.
    """
    from ..replay.bisect.play_pool import PlayPool
    from ..replay.bisect.plays import Plays
    from .scenario_input import check_packages, read

    read(scenario)
    check_packages()
    with (
        _folder(keep) as folder,
        ended_by_signals(),
        closing(PlayPool()) as pool,
    ):
        yield Plays(scenario, folder, pool)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """A new folder that stays, or a temporary one."""
    if keep is None:
        with TemporaryDirectory(prefix="specdiff-") as folder:
            yield Path(folder)
        return
    try:
        keep.mkdir()
    except OSError as error:
        raise RecordingError(
            f"{keep}: cannot be created ({error.strerror}). Name a new folder in an existing one."
        ) from error
    try:
        yield keep
    finally:
        with suppress(OSError):  # nothing was kept
            keep.rmdir()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Exit on SIGTERM and SIGHUP so that plays are ended too. They run in their own process sessions, so signals that
    `timeout` or CI sends to this process do not reach them."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = {one: signal.signal(one, leave) for one in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
