"""Output of `shrink`: progress on stderr, the result on stdout."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.status import Status
from rich.text import Text

from ..replay.laws.law import LawOutcome
from ..replay.quantity import Quantity
from ..replay.shrink.shrink import ShrunkRecording
from ..replay.shrink.shrinking import ShrinkProgress
from ..replay.spec import Lifted
from ..replay.verdict import ReplayResult
from .console import Output
from .report_check import in_words
from .report_replay import AS_OBSERVED, explained_by, later_unexplained, where

if TYPE_CHECKING:
    from typing_extensions import Self


class ShrinkReporter:
    """Show progress: a status line on a terminal; elsewhere a new line whenever fewer requests or steps are left."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False)
        self._status: Status | None = None
        self._last: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        if self._console.file.isatty():  # not is_terminal: true in CI with FORCE_COLOR
            self._status = self._console.status("shrinking")
            self._status.start()
        return self

    def __call__(self, progress: ShrinkProgress) -> None:
        says = (
            f"left: {count(progress.num_requests, 'request')}, {count(progress.num_steps, 'step')}, "
            f"{count(progress.num_events, 'event')} ({count(progress.trials, 'trial')})"
        )
        if self._status is not None:
            self._status.update(f"shrinking; {says}")
        elif (now := (progress.num_requests, progress.num_steps)) != self._last:
            self._last = now
            click.echo(f"specdiff: {says}", err=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()


def print_shrunk(shrunk: ShrunkRecording, path: Path) -> None:
    console = Output()
    if shrunk.interrupted:
        click.echo(
            "specdiff: interrupted; this is the best result so far, not the smallest.", err=True
        )
    size = f"{path.stat().st_size:,} bytes"
    console.print(Text.assemble((str(path), "bold"), f"  {size}"))
    console.print(
        f"{shrunk.left.num_requests} of {count(shrunk.before.num_requests, 'request')}, "
        f"{shrunk.left.num_steps} of {count(shrunk.before.num_steps, 'step')}, "
        f"{shrunk.left.num_events} of {count(shrunk.before.num_events, 'event')}"
    )
    if isinstance(shrunk.shows, LawOutcome):
        print_breach(console, shrunk.shows)
    else:
        _print_divergence(console, shrunk, shrunk.shows, path)


def print_breach(console: Output, outcome: LawOutcome) -> None:
    assert outcome.first is not None
    console.print(f"law {outcome.law.name}: {outcome.law.statement}")
    console.print(f"  {in_words(outcome.first)}")


def _print_divergence(
    console: Output, shrunk: ShrunkRecording, result: ReplayResult, path: Path
) -> None:
    (quantity,) = result.quantities
    assert quantity.first is not None
    if shrunk.side_that_keeps_all is not None:
        console.print(
            "No request could be removed: the observed sums are of whole batches, and there are none for part of a batch. Use "
            f"--{shrunk.side_that_keeps_all} sglang=={result.run.sglang_version}, which recomputes the same sums, to remove requests."
        )
    console.print(f"{result.old} against {result.new}: {quantity.quantity.value}")
    console.print(f"  {where(quantity.first)}; fixes: {explained_by(quantity)}")
    console.print(f"  {quantity.first.cause}")
    if shrunk.whole is not None and (later := later_unexplained(shrunk.whole)):
        # what is left need not be the bug: the unexplained divergences are perhaps gone
        console.print(
            f"Before it was shrunk: {explained_by(shrunk.whole)}, the first at {where(later)}"
        )
    if side := quantity.first.recorded_as:
        agrees, hint = (result.old, "") if side == "old" else (result.new, AS_OBSERVED)
        console.print(f"The recorded server agrees with {agrees} here.{hint}")
    console.print(f"To make a test of it: {_export(result, quantity.quantity, path)}")


def _export(result: ReplayResult, quantity: Quantity, path: Path) -> str:
    """The command that exports a test."""
    sides = (result.old, result.new)
    words = ["specdiff", "export", str(path), "--format", "pytest"]
    words += ["--old", str(result.old), "--fixed", str(result.new), "--quantity", quantity.value]
    clone = next((side.repo for side in sides if isinstance(side, Lifted) and side.repo), None)
    words += ["--repo", clone] if clone else []
    words += ["-o", f"test_{path.stem.replace('-', '_').replace('.', '_')}.py"]
    return shlex.join(words)


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
