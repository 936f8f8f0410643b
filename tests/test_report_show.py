"""What `specdiff show` looks like on a narrow terminal."""

from __future__ import annotations

import io
import re
import sys

import pytest

from specdiff.cli.inputs import bundled
from specdiff.cli.main import SAME, run


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_narrow_terminal_leaves_room_for_what_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of a finish, path beside path, must break no word of it, nor push the mark over the edge."""
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    recording = str(bundled() / "0.5.23-new-weights.h5")
    assert run(["show", recording, "--request", "r1-6"]) == SAME
    said = terminal.getvalue()
    words = set(re.findall(r"[a-z]+", said))
    assert {"generation", "everybody", "committed", "weights", "differs", "rows"} <= words
    assert max(map(len, said.splitlines())) <= 80
