"""A status line that shows what is being worked on. It appears only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def working(says: str) -> Iterator[Callable[[str], None]]:
    """Show `says` on one line of stderr and remove it at the end. Yields a function that replaces the text.

    Call that function with "" before printing anything else.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda says: None
        return
    from rich.console import Console  # imported only for a terminal
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.text import Text

    console, spinner = Console(stderr=True, highlight=False), Spinner("dots", Text(says))

    def now(says: str) -> None:
        spinner.update(text=Text(says))
        live.update(spinner if says else "", refresh=True)

    # Not `console.status`, which redirects stdout too.
    with Live(spinner, console=console, transient=True, redirect_stdout=False) as live:
        yield now
