"""What the five fixes do not explain is said in every report, and what their rules do not compute is not called unexplained."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from clones import clone, commit
from specdiff.cli.inputs import bundled
from specdiff.cli.main import DIFFERS, SAME, run

MIX, RANK = (str(bundled() / f"{name}.h5") for name in ("0.5.23-random", "0.5.12-dp-idle-rank1"))
SMALL = str(bundled() / "0.5.14-session-hole.h5")  # few enough values to export
COMMITTED = ("--quantity", "kv_committed_len")
SCHEMA = Path(__file__).parent.parent / "docs" / "replay.schema.json"


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A clone with a new bug on top of 0.5.12: a finished request does not get its claimed slot back.

    Where its stale result accepts one token, the books look as they do without #23456.
    """
    folder = clone(tmp_path_factory.mktemp("repo"), ["0.5.12"])
    file = folder / "python/sglang/srt/managers/scheduler_output_processor_mixin.py"
    text = file.read_text()
    assert text.count("req.kv_committed_len -= 1") == 1
    file.write_text(text.replace("req.kv_committed_len -= 1", "pass"))
    commit(folder, "no refund")
    return str(folder)


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(list(arguments)) == DIFFERS
    return capsys.readouterr().out


def told_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(told(capsys, *arguments, "--format", "json"))


ENDS = {
    "replay": ("--old", "--fixed"),
    "bisect": ("--good", "--bad"),
    "history": ("--from", "--to"),
}


@pytest.mark.parametrize("command", ENDS)
def test_a_table_says_how_many_values_the_named_fix_explains(
    command: str, repo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first divergence looks like #23456, and a later one does not."""
    left, right = ENDS[command]
    ends = [left, "sglang@v0.5.12", right, "sglang@main", "--repo", repo, *COMMITTED]
    lines = told(capsys, command, RANK, *ends).splitlines()
    place = next(at for at, line in enumerate(lines) if "kv_committed_len  " in line)
    first = "step 17, result (event 56), request dp1-3: 18 -> 19"
    assert re.split("  +", lines[place])[-2:] == [first, "#23456 (2 of 5); 3 unexplained"]
    later = "first unexplained: step 20, result (event 72), request dp1-4: 10 -> 11"
    assert re.split("  +", lines[place + 1])[-2:] == [later, "none of the five"]


def test_a_table_names_the_fixes_of_later_values_if_the_first_is_unexplained(
    repo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = ["--old", "sglang@v0.5.12", "--fixed", "sglang@main", "--repo", repo, *COMMITTED]
    lines = told(capsys, "replay", MIX, *ends).splitlines()
    assert lines[0].endswith("38 of 3999 values differ, 33 of them unexplained")
    (row,) = (line for line in lines if line.startswith("kv_committed_len"))
    assert row.endswith("  none of the five (33 of 38); the others: #23456")


def test_the_summary_of_several_recordings_counts_unexplained_values(
    repo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = ["--old", "sglang@v0.5.12", "--fixed", "sglang@main", "--repo", repo, *COMMITTED]
    lines = told(capsys, "replay", MIX, RANK, *ends).splitlines()
    table = [line.split() for line in lines]
    place = next(at for at, words in enumerate(table) if words[:1] == ["recording"])
    assert table[place][-1] == "unexplained"
    assert [words[-1] for words in table[place + 1 : place + 3]] == ["33", "3"]


def test_the_json_of_every_report_has_the_first_unexplained_divergence(
    repo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = "sglang@v0.5.12", "sglang@main"
    more = ["--repo", repo, *COMMITTED]
    (replayed,) = told_json(capsys, "replay", RANK, "--old", a, "--fixed", b, *more)
    jsonschema.validate([replayed], json.loads(SCHEMA.read_text()))
    found = replayed["quantities"]["kv_committed_len"]
    first, later = found["first"], found["first_unexplained"]
    assert (found["differed"], found["unexplained"]) == (5, 3)
    assert (first["event"], first["fixes"]) == (56, [[23456]])
    assert (later["event"], later["fixes"]) == (72, [])
    bisected = told_json(capsys, "bisect", RANK, "--good", a, "--bad", b, *more)
    assert (bisected["unexplained"], bisected["first_unexplained"]["event"]) == (3, 72)
    assert bisected["first_unexplained"]["quantity"] == "kv_committed_len"
    *_, last = told_json(capsys, "history", RANK, "--from", a, "--to", b, *more)["versions"]
    assert last["quantities"]["kv_committed_len"]["first_unexplained"]["event"] == 72


def test_a_shrunk_recording_and_an_exported_test_do_not_hide_that_values_are_unexplained(
    repo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = ["--old", "sglang@main", "--fixed", "sglang@v0.5.12", "--repo", repo, *COMMITTED]
    assert run(["shrink", RANK, "-o", str(tmp_path / "small.h5"), *ends]) == SAME
    shown = capsys.readouterr().out
    assert "Before it was shrunk: #23456 (2 of 5); 3 unexplained, the first at step 20" in shown
    test = tmp_path / "test_x.py"
    assert run(["export", SMALL, "--format", "pytest", "-o", str(test), *ends]) == SAME
    text = " ".join(test.read_text().split())
    assert "none of the five fixes explains 1 of them" in text and "#23456" not in text


def test_while_all_is_explained_nothing_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, "replay", MIX, *COMMITTED).splitlines()
    assert lines[0].endswith("values differ")
    (row,) = (line for line in lines if line.startswith("kv_committed_len"))
    assert row.endswith("  #23456")
    assert not any("unexplained" in line for line in lines)


def test_values_that_the_rules_do_not_compute_are_not_called_unexplained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """#23456 does change the histogram, but its rule here does not compute it."""
    ends = ["--old", "sglang==0.5.11", "--fixed", "sglang==0.5.12", "--quantity", "spec_histogram"]
    (replayed,) = told_json(capsys, "replay", MIX, *ends)
    jsonschema.validate([replayed], json.loads(SCHEMA.read_text()))
    found = replayed["quantities"]["spec_histogram"]
    assert found["differed"] > 0 and found["first"]["fixes"] == []
    assert found["unexplained"] is None and found["first_unexplained"] is None
    text = told(capsys, "replay", MIX, *ends)
    assert "none of the five" not in text and "no built-in rule" in text
    assert "unexplained" not in text


def test_a_quantity_without_a_rule_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "replay", MIX)
    assert "the built-in rules of the five fixes do not compute it" in text
    assert "affects" not in text


AGREES = "The recorded server agrees with {} at the first divergence of kv_committed_len_settled."
HINT = " To compare the server itself, use --old observed."


@pytest.mark.parametrize(
    ("name", "side", "hint"),
    [("0.5.12-stale-stop", "fixed", HINT), ("0.5.11-stale-stop", "old", "")],
)
def test_a_report_says_which_side_the_recorded_server_agrees_with(
    name: str, side: str, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """#23456 came with 0.5.12: that server never had this divergence of `old`."""
    recording, quantity = str(bundled() / f"{name}.h5"), ("--quantity", "kv_committed_len_settled")
    small, test = tmp_path / "small.h5", tmp_path / "test_small.py"
    lines = told(capsys, "replay", recording, *quantity).splitlines()
    assert AGREES.format(side) + hint in lines
    (replayed,) = told_json(capsys, "replay", recording, *quantity)
    jsonschema.validate([replayed], json.loads(SCHEMA.read_text()))
    assert replayed["quantities"]["kv_committed_len_settled"]["first"]["recorded_as"] == side
    assert "agrees with" not in told(
        capsys, "replay", recording, "--old", "observed", "--fixed", "fixed-23456"
    )
    assert run(["shrink", recording, "-o", str(small), *quantity]) == SAME
    assert f"The recorded server agrees with {side} here.{hint}\n" in capsys.readouterr().out
    assert run(["export", str(small), "--format", "pytest", "-o", str(test), *quantity]) == SAME
    text = " ".join(test.read_text().split())
    assert f"At the first divergence, the recorded server agrees with {side}." in text
