"""Narrow terminals: they show everything that a wide one shows, and numbers are never broken."""

from __future__ import annotations

import io
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
from rich.console import RenderableType
from rich.text import Text

from specdiff.cli.console import Output
from specdiff.cli.inputs import bundled
from specdiff.cli.main import run
from specdiff.cli.narrow import WHOLE

WIDTHS = range(40, 121, 4)
WIDE = 10_000
LONG = "20261122-031103-0.5.10-e521cd-pid13000-0.h5"
SERVED = Path(__file__).parent.parent / "fixtures" / "served"
COMMANDS = (
    "show {one} --request r1-3",
    "check {one}",
    "check {one} {folder}/0.5.23-new-weights.h5",
    "replay {one}",
    "replay {one} {folder}/0.5.23-new-weights.h5",
    "history {one} --from sglang==0.5.10 --to sglang==0.5.12",
    "info {one}",
    "info {one} {folder}/0.5.23-new-weights.h5",
    "reconcile {served}/0.5.12.h5 {served}/0.5.23.jsonl",
    "paths --explain sglang==0.5.12",
)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("command", COMMANDS)
def test_no_terminal_width_loses_a_word_or_a_digit(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(bundled() / "0.5.10-random.h5", tmp_path / LONG)
    printed: list[tuple[RenderableType, str | None]] = []
    print_ = Output.print

    def kept(self: Output, thing: RenderableType = "", *, style: str | None = None) -> None:
        printed.append((thing, style))
        print_(self, thing, style=style)

    monkeypatch.setenv("TERM", "xterm")
    with monkeypatch.context() as patched:
        patched.setattr(Output, "print", kept)
        _terminal(patched, WIDE)
        run(command.format(one=tmp_path / LONG, folder=bundled(), served=SERVED).split())
    assert printed
    said = {}
    for width in (WIDE, *WIDTHS):
        terminal = _terminal(monkeypatch, width)
        console = Output()
        for thing, style in printed:
            console.print(thing, style=style)
        said[width] = Text.from_ansi(terminal.getvalue()).plain
    monkeypatch.undo()
    for width in WIDTHS:
        _has_all_of(said[width], said[WIDE])


def test_a_very_long_request_id_does_not_cut_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients choose request ids, so they can be of any length."""
    rid = "r" * 12_000
    said = []
    for width in (WIDE, 100):
        terminal = _terminal(monkeypatch, width)
        console = Output()
        made = console.table("request", "checked", "why", right=(1,))
        made.add_row(rid, "123456", "it differs")
        console.print(made)
        said.append(Text.from_ansi(terminal.getvalue()).plain)
    monkeypatch.undo()
    for one in said:
        assert rid in one.replace("\n", "") and "123456" in one and "…" not in one


def test_at_100_columns_check_does_not_break_the_name_of_a_quantity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = _terminal(monkeypatch, 100)
    run(["check", str(bundled() / "0.5.10-stale-stop.h5")])
    monkeypatch.undo()
    assert "kv_committed_len_settled" in terminal.getvalue()


@pytest.mark.parametrize("width", [40, 60, 70, 80])
def test_the_matrix_of_laws_is_complete_at_every_width(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The matrix is printed in blocks of as many laws as fit."""
    command = ["check", *map(str, sorted(bundled().glob("0.5.12-*.h5"))), "--path", "observed"]
    said = []
    monkeypatch.setenv("TERM", "xterm")
    for columns in (width, WIDE):
        terminal = _terminal(monkeypatch, columns)
        run(command)
        said.append(Text.from_ansi(terminal.getvalue()).plain)
    monkeypatch.undo()
    _has_all_of(*said)
    matrix, _, _ = said[0].partition("+ holds")
    assert max(map(len, matrix.splitlines())) <= width


def _terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> _Terminal:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys, "stdout", made := _Terminal())
    return made


def _has_all_of(narrow: str, wide: str) -> None:
    """Assert that the narrow text has every short word as often, and all characters of the long ones."""
    whole = Counter(word for word in wide.split() if len(word) <= WHOLE)
    assert not whole - Counter(narrow.split())
    made_of, found = (Counter("".join(re.split(r"[\s─━]+", text))) for text in (wide, narrow))
    assert not made_of - found and "…" not in narrow
