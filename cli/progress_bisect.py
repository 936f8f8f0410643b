"""Progress of a bisection: shown on stderr, written to a log, and printed as a command to continue after Ctrl-C."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TextIO

import click

from ..recorders.errors import RecordingError
from ..replay.bisect.judge import Finding
from ..replay.bisect.search import Report, SearchProgress
from ..replay.spec import Lifted, Origin
from .console import one_line

_WIDTH = 40  # characters in the progress bar


class Narrowing:
    """A `Report` of a search. On Ctrl-C it prints how to continue."""

    def __init__(
        self, recording: str, good: Lifted, bad: Lifted, asked: tuple[str, ...], log: Path | None
    ) -> None:
        """`asked`: the options that define "good", to repeat in the command that continues.

        Raises RecordingError if the log cannot be written.
        """
        self._recording, self._asked = recording, asked
        self._commits = good.origin is Origin.REVISION
        self._last: SearchProgress | None = None
        self._log = _opened(log) if log else None
        ends = ("--good", str(good), "--bad", str(bad))
        self._write(f"# {shlex.join(['specdiff', 'bisect', recording, *ends, *asked])}")

    def __call__(self, progress: SearchProgress) -> None:
        if self._last is None and self._commits:
            self._start(progress)
        self._last = progress
        if progress.tested is not None:
            self._found(progress.tested.path, progress.tested.finding, progress.tested.why)
        click.echo(self._line(progress), err=True)

    def __enter__(self) -> Report:
        return self

    def __exit__(self, _: object, stopped: BaseException | None, __: object) -> None:
        if self._log is not None:
            self._log.close()
        if isinstance(stopped, KeyboardInterrupt) and self._last and self._commits:
            click.echo(f"\nTo continue: {self.resume(self._last)}", err=True)

    def resume(self, progress: SearchProgress) -> str:
        good, bad = progress.ends
        words = ["specdiff", "bisect", self._recording]
        words += ["--good", f"sglang@{good.where}", "--bad", f"sglang@{bad.where}"]
        words += self._asked
        for commit in progress.skipped:
            words += ["--skip", commit]
        return shlex.join(words)

    def _start(self, progress: SearchProgress) -> None:
        """Log the start. For git, good is the older end; a search for a fix therefore uses other terms."""
        good, bad = progress.ends
        ends = ((Finding.BAD, bad), (Finding.GOOD, good))
        # quoted, because `git bisect replay` ignores them otherwise
        terms = "" if progress.forward else " '--term-old=broken' '--term-new=fixed'"
        self._write(f"git bisect start{terms}")
        for finding, path in ends:
            self._found(path, finding, None, forward=progress.forward)
        for commit in progress.skipped:  # from --skip, so no later line reports them
            self._write("# skipped with --skip")
            self._write(f"git bisect skip {commit}")

    def _found(
        self, path: Lifted, finding: Finding, why: str | None, *, forward: bool | None = None
    ) -> None:
        forward = (self._last is None or self._last.forward) if forward is None else forward
        if not self._commits:
            self._write(f"{finding.value} {path}" + (f"  # {one_line(why)}" if why else ""))
            return
        words = {Finding.GOOD: "good", Finding.BAD: "bad", Finding.SKIPPED: "skip"}
        if not forward:
            words |= {Finding.GOOD: "fixed", Finding.BAD: "broken"}
        self._write(f"# {path}" + (f": {one_line(why)}" if why else ""))
        self._write(f"git bisect {words[finding]} {path.where}")

    def _write(self, line: str) -> None:
        if self._log is not None:
            self._log.write(line + "\n")
            self._log.flush()

    def _line(self, progress: SearchProgress) -> str:
        says = ""
        if progress.tested is not None:
            says = f"  {progress.tested.path} {progress.tested.finding.value}"
        if not self._commits:
            return f"{progress.of - progress.left} of {progress.of}{says}"
        return f"{bracket(progress.span, progress.of)} {progress.left} left{says}"


def _opened(log: Path) -> TextIO:
    try:
        return log.open("w", encoding="utf-8")
    except OSError as error:
        raise RecordingError(f"{log}: cannot be written ({error}).") from error


def bracket(span: tuple[int, int], of: int) -> str:
    """A progress bar of the candidates, oldest on the left: `.` is ruled out, `#` may still be the answer."""
    width = min(of, _WIDTH)
    first, last = (place * width // of for place in span)
    return "[" + "." * first + "#" * (last - first + 1) + "." * (width - last - 1) + "]"
