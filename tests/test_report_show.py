"""The output of `specdiff show`: the life of a request word for word, and on a narrow terminal."""

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


def test_show_breaks_no_word_on_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The column with the rows of each path must not break words or push the mark off the screen."""
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    recording = str(bundled() / "0.5.23-new-weights.h5")
    assert run(["show", recording, "--request", "r1-6"]) == SAME
    said = terminal.getvalue()
    words = set(re.findall(r"[a-z]+", said))
    assert {"generation", "running", "committed", "weights", "differs", "rows"} <= words
    assert max(map(len, said.splitlines())) <= 80


MIXED_LIFE = """
step | event | what | old | fixed | observed
0 | 1 | arrive
0 | 4 | extend | 10 tokens after 0 cached | 10 | 10 | 10
1 | 5 | launch | extend
1 | 9 | prepare | 10 | 10+1 | 10
2 | 10 | launch | decode
2 | 11 | result | one token, from the prefill
2 | 14 | prepare | 10 | 10+2 | 10
3 | 15 | launch | decode
3 | 16 | result | accepts 2 | 12 | 12+1 | 12
3 | 21 | result | accepts 2 | 14 | 14 | 14
3 | 24 | release | committed 14 of 18 slots | released 14
3 | 25 | retract | 0 | 0 | 0
3 | 29 | arrive
3 | 31 | control | generation is paused; all running requests are retracted
3 | 33 | control | weights change from default to policy-1
3 | 34 | control | generation continues
3 | 35 | extend | 6 tokens after 9 cached | 15 | 15 | 15
4 | 36 | launch | extend
5 | 42 | result | one token, from the prefill
5 | 43 | abort | while running
5 | 44 | control | generation is paused; running requests stay in the batch
5 | 45 | control | weights change from policy-1 to policy-2
5 | 46 | control | generation continues
5 | 48 | merge | 5 requests in the batch
5 | 53 | filter | 4 requests in the batch
5 | 55 | prepare | 15 | 15+1 | 15
6 | 56 | launch | decode
7 | 61 | result | accepts 2 | 17 | 17 | 17
7 | 62 | finish | abort: prompt 10, 8 outputs | 17, rows [0, 17) | 17, no rows | 17, no rows | <- differs
7 | 63 | release | committed 17 of 23 slots | released 17
7 | 64 | sent | 8 tokens
7 | 65 | weight span | weights default are reported for tokens [0, 5)
7 | 66 | weight span | weights policy-1 are reported for tokens [5, 6)
7 | 67 | weight span | weights policy-2 are reported for tokens [6, 8)
7 | 71 | merge | 5 requests in the batch
Where the paths differ, observed agrees with fixed.
10+1: 10 settled, 1 slot claimed for results still to come.
"""
"""This request is retracted, aborted while running, and has tokens of three policies. Control events before and after its
life are left out."""

STALE = """
step | event | what | old | fixed | observed
104 | 840 | arrive
108 | 883 | extend | 17 tokens after 13 cached | 30 | 30 | 30
109 | 884 | launch | extend
109 | 886 | abort | while running
109 | 888 | merge | 16 requests in the batch
109 | 891 | prepare | 30 | 30+1 | 30
110 | 892 | launch | decode
110 | 893 | finish | abort: prompt 30, 1 outputs | 30, rows [0, 30) | 30+1, no rows | 30, no rows | <- differs
110 | 894 | release | committed 30 of 38 slots | released 30
110 | 895 | sent | 1 tokens
110 | 896 | result | one token, from the prefill
111 | 900 | result | accepts 3, stale: the request is finished | 33 | 30 | 30 | <- differs
Where the paths differ, observed agrees with fixed.
30+1: 30 settled, 1 slot claimed for results still to come.
"""
QUEUED = """
step | event | what | old | fixed | observed
81 | 632 | arrive
81 | 633 | abort | while queued
"""


@pytest.mark.parametrize(
    ("name", "rid", "life"),
    [
        ("0.5.23-new-weights", "r1-1", MIXED_LIFE),
        ("0.5.23-random", "r1-71", STALE),
        ("0.5.23-random", "r1-50", QUEUED),
    ],
)
def test_show_prints_these_lives_word_for_word(
    name: str, rid: str, life: str, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = ["--path", "old", "--path", "fixed", "--path", "observed"]
    assert run(["show", str(bundled() / f"{name}.h5"), "--request", rid, *paths]) == SAME
    title, *said = capsys.readouterr().out.splitlines()
    assert title == f"request {rid}"
    assert [" | ".join(re.split(r"  +", line.strip())) for line in said] == life.split("\n")[1:-1]


def test_show_leaves_out_control_events_before_the_request_arrived(
    capsys: pytest.CaptureFixture[str],
) -> None:
    recording = str(bundled() / "0.5.23-new-weights.h5")
    assert run(["show", recording, "--request", "r1-22"]) == SAME
    _, _, first, *_ = capsys.readouterr().out.splitlines()
    assert first.split()[2] == "arrive"


def test_show_names_no_path_that_observed_differs_from(capsys: pytest.CaptureFixture[str]) -> None:
    """At the stale result, this server computed what neither path computes, or only old does."""
    recording = str(bundled() / "0.5.11-stale-stop.h5")
    show = ["show", recording, "--request", "stop-1-0"]
    for paths, same in (((), ["old"]), (("fixed", "observed"), [])):
        assert run([*show, *(word for path in paths for word in ("--path", path))]) == SAME
        out = capsys.readouterr().out
        assert "<- differs" in out
        named = re.findall(r"observed agrees with (\S+)\.\n", out)
        assert named == same
