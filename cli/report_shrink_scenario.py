"""Output of shrinking a scenario: the file, progress on stderr, the result on stdout."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
from rich.text import Text

from ..fixtures.rig.shrink_scenario import ScenarioShrinkProgress, ShrunkScenario
from ..fixtures.rig.written import write_scenario
from ..recorders.errors import printable
from ..replay.spec import Lifted, Origin
from .console import Output
from .report_check import in_words
from .report_shrink import count, print_breach


class ScenarioShrinkReporter:
    """Print a line whenever less is left, or something became simpler."""

    def __init__(self, now: Callable[[str], None], doing: str) -> None:
        """`now`: the function that `working` yields. `doing`: the text of its status line."""
        self._now, self._doing, self._last = now, doing, ""

    def __call__(self, progress: ScenarioShrinkProgress) -> None:
        requests = count(progress.num_requests, "request")
        left = f"{requests}, {count(progress.num_actions, 'timed action')}"
        says = left if left != self._last else f"{left}, simpler"
        self._last = left
        self._now("")  # or this line would follow the status on the same line
        click.echo(f"specdiff: left: {says} ({count(progress.plays, 'play')})", err=True)
        self._now(self._doing)


def scenario_file(shrunk: ShrunkScenario, source: Path, sglang: Lifted, output: Path) -> str:
    first = shrunk.outcome.first
    assert first is not None
    head = (
        f"{sglang} breaks the law {shrunk.outcome.law.name}: {in_words(first)}.",
        f"{_left(shrunk)}, shrunk from {source.name} in {count(shrunk.left.plays, 'play')}.",
        f"    {_history(shrunk, output)}",
    )
    comments = "".join(f"# {printable(line)}\n" for line in head)
    release = sglang.where if sglang.origin is Origin.RELEASE else ""
    return f"{comments}\n{write_scenario(replace(shrunk.scenario, sglang=release))}"


def _left(shrunk: ShrunkScenario) -> str:
    before, left = shrunk.before, shrunk.left
    return (
        f"{left.num_requests} of {count(before.num_requests, 'request')}, "
        f"{left.num_actions} of {count(before.num_actions, 'timed action')}"
    )


def _history(shrunk: ShrunkScenario, output: Path) -> str:
    return shlex.join(["specdiff", "history", str(output), "--law", shrunk.outcome.law.name])


def print_shrunk(shrunk: ShrunkScenario, sglang: Lifted, output: Path) -> None:
    console = Output()
    if shrunk.interrupted:
        click.echo(
            "specdiff: interrupted; this is the best result so far, not the smallest.", err=True
        )
    size = f"{output.stat().st_size:,} bytes"
    console.print(Text.assemble((str(output), "bold"), f"  {size}"))
    console.print(f"{_left(shrunk)}, {count(shrunk.left.plays, 'play')}")
    print_breach(console, shrunk.outcome)
    console.print(f"To see which releases break it: {_history(shrunk, output)}")
    stem = output.stem.replace("-", "_").replace(".", "_")
    test = ["specdiff", "export", str(output), "--format", "pytest"]
    test += ["--law", shrunk.outcome.law.name, "-o", f"test_{stem}.py"]
    if sglang.origin is not Origin.RELEASE:
        test += ["--path", str(sglang)] + (["--repo", sglang.repo] if sglang.repo else [])
    console.print(f"To make a test of it: {shlex.join(test)}")
