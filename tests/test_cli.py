"""The commands as a person or a script sees them: output, exit codes, messages."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest

from gaps import ended
from specdiff.cli.inputs import bundled
from specdiff.cli.main import BROKEN, DIFFERS, NO_VERDICT, SAME, cli, run
from specdiff.recorders import hdf5
from specdiff.recorders.schema import Kind
from specdiff.replay.paths import fixes as fix_table
from specdiff.replay.paths.fixes import NUMBERS, Fix
from specdiff.replay.quantity import Quantity


def replay_json(
    capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, list[dict[str, Any]]]:
    code = run(["replay", *arguments, "--format", "json"])
    return code, json.loads(capsys.readouterr().out)


def test_the_demo_names_each_of_the_five_bugs(capsys: pytest.CaptureFixture[str]) -> None:
    code, results = replay_json(capsys)
    assert code == DIFFERS
    named = {
        number
        for result in results
        for q in result["quantities"].values()
        for number in q["by_fix"]
    }
    assert named == {str(number) for number in NUMBERS}
    for result in results:
        for quantity in result["quantities"].values():
            assert not quantity["unexplained"]
            if first := quantity["first"]:
                assert first["old"] != first["fixed"] and first["cause"] and first["fixes"]


def test_the_json_output_matches_the_published_schema(capsys: pytest.CaptureFixture[str]) -> None:
    schema = json.loads((Path(__file__).parent.parent / "docs" / "replay.schema.json").read_text())
    assert schema["$defs"]["kind"]["enum"] == [kind.name.lower() for kind in Kind]
    for paths in ([], ["--old", "observed"], ["--old", "fixed"]):
        _, results = replay_json(capsys, *paths)
        jsonschema.validate(results, schema)
        for result in results:
            assert list(result["quantities"]) == [quantity.value for quantity in Quantity]


def test_a_recording_without_events_gives_no_verdict_on_laws(
    tmp_path: Path, real_recording: Path
) -> None:
    path = tmp_path / "empty.h5"
    hdf5.save(ended(hdf5.load(real_recording), 0), path)
    assert run(["check", str(path)]) == NO_VERDICT


def test_a_path_is_the_same_as_itself(
    capsys: pytest.CaptureFixture[str], real_recording: Path
) -> None:
    code, (result,) = replay_json(capsys, str(real_recording), "--old", "fixed", "--fixed", "fixed")
    assert (code, result["verdict"]) == (SAME, "same")
    assert result["quantities"]["kv_committed_len"]["compared"] > 0


def test_the_worst_of_several_recordings_wins(
    capsys: pytest.CaptureFixture[str], real_recording: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.h5"
    broken.write_bytes(real_recording.read_bytes()[:-100])
    assert run(["replay", str(broken), str(real_recording), "--format", "json"]) == BROKEN
    said = capsys.readouterr()
    assert [result["recording"]["path"] for result in json.loads(said.out)] == [str(real_recording)]
    assert str(broken) in said.err


def test_a_quantity_that_was_not_captured_has_no_verdict(
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = next(
        path for path in sorted(bundled().glob("*.h5")) if not hdf5.load(path).run.indexer_capturer
    )
    code, (result,) = replay_json(capsys, str(path), "--quantity", "indexer_topk")
    assert (code, result["verdict"]) == (NO_VERDICT, "no-verdict")


@pytest.mark.parametrize(
    "arguments",
    [
        ["replay"],
        ["bisect", "--good", "sglang==0.5.11", "--bad", "sglang==0.5.12"],
        ["history", "--from", "sglang==0.5.11", "--to", "sglang==0.5.12"],
    ],
)
def test_a_quantity_that_is_named_twice_is_compared_once(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*arguments, str(bundled() / "0.5.11-stale-retract.h5")]
    for form in ("table", "json"):
        said = []
        for times in (1, 2):
            named = ["--quantity", "kv_committed_len_settled"] * times
            assert run([*asked, *named, "--format", form]) == DIFFERS
            said.append(capsys.readouterr().out)
        assert said[0] == said[1]


def test_explanations_are_found_by_toggling_fixes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the implementations of two fixes are swapped, the printed explanations are swapped too."""
    _, before = replay_json(capsys, "--fixed", "fixed")
    swap = {22651: 23456, 23456: 22651}
    apply = {fix.number: fix.apply for fix in fix_table.FIXES}
    swapped = tuple(
        Fix(fix.number, fix.title, fix.since, apply[swap.get(fix.number, fix.number)])
        for fix in fix_table.FIXES
    )
    monkeypatch.setattr(fix_table, "FIXES", swapped)
    _, after = replay_json(capsys, "--fixed", "fixed")
    old, new = (
        [r["quantities"]["kv_committed_len_settled"]["by_fix"].keys() for r in results]
        for results in (before, after)
    )
    assert any("23456" in fixes for fixes in old)
    renamed = [{str(swap.get(int(number), int(number))) for number in fixes} for fixes in old]
    assert renamed == [set(fixes) for fixes in new]


def test_the_summary_counts_values(capsys: pytest.CaptureFixture[str]) -> None:
    """The counts of the values that each fix explains include all quantities."""
    names = ("0.5.11-stale-stop", "0.5.14-dflash")
    recordings = [str(bundled() / f"{name}.h5") for name in names]
    assert run(["replay", *recordings, "--fixed", "fixed"]) == DIFFERS
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    told = [line[3:] for line in said if len(line) == 8 and line[2] == "differs"]
    # Of #23456 in the first recording: 8 settled lengths, the same 8 with claims, 8 verify counts
    # and 6 draft counts.
    assert told == [["188", "30", "0", "13", "0"], ["1606", "252", "20", "68", "8"]]


def test_the_report_warns_about_what_the_recording_lost(
    capsys: pytest.CaptureFixture[str], real_recording: Path, tmp_path: Path
) -> None:
    recording = hdf5.load(real_recording)
    assert recording.stats is not None
    stats = dataclasses.replace(
        recording.stats, dropped=7, exceptions=2, first_exception="KeyError: x"
    )
    path = tmp_path / "x.h5"
    hdf5.save(
        dataclasses.replace(recording, stats=stats, damage="the file ends inside a record"), path
    )
    _, (result,) = replay_json(capsys, str(path))
    assert len(result["recording"]["warnings"]) == 3
    run(["replay", str(path)])
    out = capsys.readouterr().out
    assert "dropped 7 events" in out and "KeyError: x" in out and "ends inside a record" in out


def test_show_marks_the_finish_whose_rows_differ(capsys: pytest.CaptureFixture[str]) -> None:
    path = bundled() / "0.5.12-experts-overshoot.h5"
    assert run(["show", str(path), "--request", "overshoot-1-1"]) == SAME
    (finish,) = [line for line in capsys.readouterr().out.splitlines() if " finish " in line]
    assert "rows [0, 23)" in finish and "rows [0, 20)" in finish and "differs" in finish


def test_show_says_what_each_path_lets_a_session_keep(capsys: pytest.CaptureFixture[str]) -> None:
    """0.5.15 lets the second turn inherit a position that was never written (docs/findings).

    0.5.14 does not.
    """
    paths = [part for name in ("observed", "sglang==0.5.14", "old") for part in ("--path", name)]
    said = {}
    for rid in ("turn-1-0-0", "turn-1-0-1"):
        assert (
            run(["show", str(bundled() / "0.5.15-session-hole.h5"), "--request", rid, *paths])
            == SAME
        )
        lines = capsys.readouterr().out.splitlines()
        said[rid] = [re.split(r"  +", line) for line in lines if "  session " in line]
    assert said["turn-1-0-0"][0][4:] == [
        "session 0 keeps 30 tokens",
        "session 30",
        "session 29",
        "<- differs",
    ]
    restore, save = said["turn-1-0-1"]
    assert restore[4:] == [
        "inherits 30 tokens of session 0",
        "session 30",
        "session 29",
        "<- differs",
    ]
    assert save[4:] == ["session 0 keeps 39 tokens", "session 39", "session 39"]


def test_show_lists_all_events_of_a_request(capsys: pytest.CaptureFixture[str]) -> None:
    path = next(path for path in sorted(bundled().glob("*.h5")) if "stale-stop" in path.name)
    recording = hdf5.load(path)
    rid = recording.rids[int(recording.result_rows.qid[recording.result_rows.finished == 1][0])]
    assert run(["show", str(path), "--request", rid]) == SAME
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert rid in lines[0]
    assert [
        word
        for word in ("extend", "prepare", "launch", "result", "finish", "release")
        if word not in out
    ] == []
    assert any("stale" in line and "differs" in line for line in lines)


def test_show_explains_a_length_with_a_claim(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", str(bundled() / "0.5.10-random.h5"), "--request", "r1-3"]) == SAME
    *table, legend = capsys.readouterr().out.splitlines()
    value, _, says = legend.partition(": ")
    settled, _, claimed = value.partition("+")
    assert any(value in line.split() for line in table)
    assert says == f"{settled} settled, {claimed} slot claimed for results still to come."
    shown = ["show", str(bundled() / "0.5.10-random.h5"), "--request", "r1-3", "--path", "old"]
    assert run(shown) == SAME
    assert "claimed" not in capsys.readouterr().out  # the old books claim nothing


def test_info_says_what_made_the_recording(
    capsys: pytest.CaptureFixture[str], real_recording: Path
) -> None:
    run_ = hdf5.load(real_recording).run
    assert run(["info", str(real_recording)]) == SAME
    out = capsys.readouterr().out
    assert run_.sglang_version in out and "specdiff.fixtures.rig" in out and "complete" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["info", "{real}"],
        ["record", "--help"],
        ["redact", "{real}", "-o", "{out}"],
        ["export", "--help"],
    ],
)
def test_quick_commands_import_neither_torch_nor_sglang(
    arguments: list[str], real_recording: Path, tmp_path: Path
) -> None:
    names = {"real": real_recording, "out": tmp_path / "out.h5"}
    script = (
        "import sys; from specdiff.cli.main import run; "
        f"code = run({[a.format(**names) for a in arguments]!r}); "
        "print(code, sorted({'torch', 'sglang'} & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr == "0 []\n"


def test_every_command_and_option_has_help() -> None:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None and command.help
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.opts[0]}"


@pytest.mark.parametrize(
    ("name", "old", "only_claims"),
    [("0.5.23-random", "observed", True), ("0.5.12-stale-stop", "old", False)],
)
def test_replay_says_if_committed_lengths_differ_only_by_claims(
    name: str, old: str, only_claims: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """From 0.5.15 on no server claims. So a correct one differs from `fixed` at every prepare."""
    paths = ["--old", old, "--fixed", "fixed"]
    assert run(["replay", str(bundled() / f"{name}.h5"), *paths]) == DIFFERS
    said = "kv_committed_len differs only by slots claimed for results still to come: settled, all "
    assert (said in capsys.readouterr().out) == only_claims
