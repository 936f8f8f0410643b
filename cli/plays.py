"""What the commands have in common that have sglang play a recording again, or a scenario: `--law` of bisect and history, and, for
its signals, `export` and `shrink`."""

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
            help="With --law: keep what is recorded of each version, in a new folder.",
        )
        return click.option("--law", metavar="NAME", help=says)(keep(command))

    return decorate


def check_options(source: str, law: str | None, *books: str) -> None:
    """Raises UsageError. `books`: parameters that have no meaning with a law."""
    if law is None:
        options.only_for("--law", "keep")
        if source.endswith(".toml"):
            raise UsageError(
                f"{source}: a scenario has no books, it is played: name a law, --law NAME."
            )
    else:
        options.only_for("books (no --law)", *books)


@contextmanager
def plays_of(scenario: Path, keep: Path | None) -> Iterator[Plays]:
    """Raises RecordingError where the file cannot be read or the folder not be made, NoVerdictError where it is a recording
    that cannot be played again, or nothing can be played here."""
    from ..replay.bisect.playhouse import Playhouse
    from ..replay.bisect.plays import Plays
    from .scenarios import check_packages, read

    read(scenario)
    check_packages()
    with (
        _folder(keep) as folder,
        ended_by_signals(),
        closing(Playhouse()) as house,
    ):
        yield Plays(scenario, folder, house)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """A new one that stays, or a temporary one."""
    if keep is None:
        with TemporaryDirectory(prefix="specdiff-") as folder:
            yield Path(folder)
        return
    try:
        keep.mkdir()
    except OSError as error:
        raise RecordingError(
            f"{keep}: cannot be made ({error.strerror}). Name a new folder, in one that is there."
        ) from error
    try:
        yield keep
    finally:
        with suppress(OSError):  # nothing was kept
            keep.rmdir()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Plays are processes of their own sessions: whoever ends us, as `timeout` and CI do, means them, too."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = {one: signal.signal(one, leave) for one in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
