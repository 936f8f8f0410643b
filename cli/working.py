"""What is being worked on, for as long as it takes: on a terminal, and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def working(says: str) -> Iterator[Callable[[str], None]]:
    """One line on stderr, gone at the end; what is yielded replaces it. Nothing else may be printed before that is told ""."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda says: None
        return
    from rich.console import Console  # not where nobody looks
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.text import Text

    console, spinner = Console(stderr=True, highlight=False), Spinner("dots", Text(says))

    def now(says: str) -> None:
        spinner.update(text=Text(says))
        live.update(spinner if says else "", refresh=True)

    # not `console.status`, which takes stdout along, wherever that goes
    with Live(spinner, console=console, transient=True, redirect_stdout=False) as live:
        yield now
