"""docs/laws.md and `specdiff check` describe the laws as they are.

Which releases break them is measured here.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from children import SOME
from lifting import bundled_recording
from specdiff.cli.inputs import bundled
from specdiff.cli.main import DIFFERS, run
from specdiff.fixtures.rig.release import RELEASES
from specdiff.replay import spec
from specdiff.replay.columns.shared import Columns
from specdiff.replay.explain import Toggles
from specdiff.replay.laws.check import LAWS, check
from specdiff.replay.laws.law import Law, State
from specdiff.replay.verdict import ledger_of

PAGE = (Path(__file__).parent.parent / "docs" / "laws.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| `")
]
NAMES = ("0.5.23-random", "0.5.14-session-hole", "0.5.12-merge-filter")
SHOWN_ELSEWHERE = {("session", "0.5.10"), ("session", "0.5.10.post1")}  # test_rig_written: #22651


def test_the_page_lists_the_laws_as_they_are() -> None:
    assert [
        [
            f"`{law.name}`",
            law.statement,
            law.needs.event,
            row[3],
            ", ".join(f"#{number}" for number in law.related),
        ]
        for law, row in zip(LAWS, ROWS, strict=True)
    ] == ROWS
    for law in LAWS:
        known = re.search(
            rf"^- `{law.name}`: (.*?)(?=^- |\Z|^$)",
            PAGE.split("## Known")[1],
            re.MULTILINE | re.DOTALL,
        )
        assert (known is None) == (law.known is None)
        if law.known and known:
            assert law.known.reason in " ".join(known[1].split())
            assert f"known: {law.known.where}" in _said(law)


@pytest.mark.parametrize("release", sorted({*SOME, "0.5.14", "0.5.15"}, key=RELEASES.index))
def test_the_page_says_which_releases_break_which_law(release: str) -> None:
    broken = set()
    for name in NAMES:
        columns = _columns(name)
        ledger = ledger_of(columns, Toggles(columns), spec.parse(f"sglang=={release}"))
        broken |= {o.law.name for o in check(columns, ledger) if o.state is State.BROKEN}
    said = {
        law.name
        for law in LAWS
        if release in _releases(_said(law).partition("known:")[0])
        and not law.needs.observed_only  # laws about what was sent: test_sent.py
    }
    assert broken == {name for name in said if (name, release) not in SHOWN_ELSEWHERE}


@cache
def _columns(name: str) -> Columns:
    return Columns(bundled_recording(name))


def _said(law: Law) -> str:
    return next(row[3] for row in ROWS if row[0] == f"`{law.name}`")


def _releases(text: str) -> set[str]:
    """Return the releases of ranges such as 0.5.9 - 0.5.11, including both ends."""
    ranges = re.findall(r"(0\.5\.[\w.]+) - (0\.5\.[\w.]*\w)", text)
    return {
        release
        for first, last in ranges
        for release in RELEASES[RELEASES.index(first) : RELEASES.index(last) + 1]
    }


def test_check_prints_the_statement_of_every_law(capsys: pytest.CaptureFixture[str]) -> None:
    run(["check", str(bundled() / "0.5.23-random.h5")])
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if len(line) == 2][-len(LAWS) :] == [
        [law.name, law.statement] for law in LAWS
    ]


def test_check_of_several_recordings_prints_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    """For each law: its statement, and in how many recordings it had which state."""
    names = ("0.5.23-random", "0.5.14-dflash", "0.5.10-random", "0.5.12-experts-overshoot")
    assert run(["check", *(str(bundled() / f"{name}.h5") for name in names)]) == DIFFERS
    out = capsys.readouterr().out
    assert "Counts: out of 4 recordings." in out
    rows = [line.split(maxsplit=7) for line in out.splitlines() if re.match(r" ?\d+ ", line)]
    assert [row[1] for row in rows] == [law.name for law in LAWS]
    assert [row[7] for row in rows] == [law.statement for law in LAWS]
    summary = {row[1]: row[2:7] for row in rows}  # holds, broken, known, silenced, not exercised
    assert summary["commit"] == ["4", "0", "0", "0", "0"]
    assert summary["rows"] == ["2", "2", "0", "0", "0"]
    assert summary["sums"] == ["1", "2", "1", "0", "0"]
    assert summary["session"] == ["0", "0", "0", "0", "4"]
    for name, counts in summary.items():
        assert int(counts[1]) == len(re.findall(rf"\.h5 {name}: \d+ of \d+ broken, first at", out))
