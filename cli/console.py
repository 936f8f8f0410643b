"""Standard output: formatted by rich on a terminal, plain and unwrapped when piped."""

from __future__ import annotations

import json
import sys
from typing import Any, TextIO

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from ..recorders.errors import printable
from .narrow import fit

_PIPED_WIDTH = 10_000  # columns; output that a program reads must not be wrapped or cut


class Output:
    """Print to standard output, or to `stream`. When piped: no color, no wrapping and no trailing spaces."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or _stdout()
        self.terminal = self._stream.isatty()
        self._console = (
            Console(file=stream, highlight=False, markup=False, emoji=False)
            if self.terminal
            else Console(
                highlight=False, markup=False, emoji=False, width=_PIPED_WIDTH, color_system=None
            )
        )

    def print(self, thing: RenderableType = "", *, style: str | None = None) -> None:
        if self.terminal:
            if isinstance(thing, Table) and not fit(self._console, thing):
                self._print_wide(thing)
            else:
                self._console.print(thing, style=style)
            return
        with self._console.capture() as captured:
            self._console.print(thing)
        self._stream.writelines(
            f"{line.rstrip()}\n" for line in captured.get().splitlines() or [""]
        )

    def _print_wide(self, table: Table) -> None:
        """Print a table as when piped and let the terminal break its lines, so that nothing is lost.

        Trailing spaces are removed, because they would wrap into empty lines.
        """
        with self._console.capture() as captured:
            self._console.print(table, crop=False)
        for line in Text.from_ansi(captured.get().rstrip("\n")).split():
            line.rstrip()
            self._console.print(line, soft_wrap=True)

    @property
    def width(self) -> int:
        """Width of the terminal in columns. When piped, wide enough for any line."""
        return self._console.width

    def table(self, *headers: str, right: tuple[int, ...] = ()) -> Table:
        """A table without a frame. `right`: indices of the number columns, which are right-aligned."""
        shown = any(headers)
        look = box.SIMPLE_HEAD if self.terminal and shown else None
        table = Table(box=look, pad_edge=False, show_edge=False, show_header=shown)
        for index, header in enumerate(headers):
            number = index in right
            whole = number or index == 0
            table.add_column(
                header,
                justify="right" if number else "left",
                no_wrap=whole,
                overflow="ellipsis" if whole else "fold",  # a truncated id identifies no request
            )
        return table


def write_json(document: Any) -> None:
    stream = _stdout()
    json.dump(document, stream, indent=2)
    stream.write("\n")


def _stdout() -> TextIO:
    """Raises OSError if the caller closed it."""
    if sys.stdout is None:
        raise OSError("standard output is closed")
    return sys.stdout


def one_line(text: str) -> str:
    """Join lines into one, for a table cell or a comment."""
    return printable(" ".join(text.splitlines()))
