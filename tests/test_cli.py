"""The commands as a person or a script meets them: output, exit codes, messages."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest

from children import SPECDIFF
from specdiff.cli.inputs import bundled
from specdiff.cli.main import BROKEN, DIFFERS, NO_VERDICT, SAME, USAGE, cli, run
from specdiff.recorders import hdf5
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
            assert quantity["unexplained"] == 0
            if first := quantity["first"]:
                assert first["old"] != first["fixed"] and first["cause"] and first["fixes"]


def test_json_is_what_the_published_schema_says(capsys: pytest.CaptureFixture[str]) -> None:
    schema = json.loads((Path(__file__).parent.parent / "docs" / "replay.schema.json").read_text())
    for paths in ([], ["--old", "observed"], ["--old", "fixed"]):
        _, results = replay_json(capsys, *paths)
        jsonschema.validate(results, schema)
        for result in results:
            assert list(result["quantities"]) == [quantity.value for quantity in Quantity]


def test_the_same_path_twice_is_the_same(
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
def test_a_quantity_that_is_named_twice_counts_once(
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


def test_explanations_are_found_by_toggling(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Swap two fixes' implementations, and the printed explanation follows."""
    _, before = replay_json(capsys)
    swap = {22651: 23456, 23456: 22651}
    apply = {fix.number: fix.apply for fix in fix_table.FIXES}
    swapped = tuple(
        Fix(fix.number, fix.title, fix.since, apply[swap.get(fix.number, fix.number)])
        for fix in fix_table.FIXES
    )
    monkeypatch.setattr(fix_table, "FIXES", swapped)
    _, after = replay_json(capsys)
    old, new = (
        [r["quantities"]["kv_committed_len_settled"]["by_fix"].keys() for r in results]
        for results in (before, after)
    )
    assert any("23456" in fixes for fixes in old)
    renamed = [{str(swap.get(int(number), int(number))) for number in fixes} for fixes in old]
    assert renamed == [set(fixes) for fixes in new]


LONG = "x" * 300
TABLE = ["export", "{real}", "-o", "{empty}/x.jsonl", "--format", "jsonl"]
BISECT = ["bisect", "{retract}", "--good", "sglang==0.5.11", "--bad", "sglang==0.5.12"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["replay", "no/such/file.h5"], BROKEN, "no/such/file.h5: no such file"),
        (["replay", "{empty}"], BROKEN, "a folder without recordings"),
        (["replay", "{text}"], BROKEN, "not an HDF5 file"),
        (["replay", ""], USAGE, "the name is empty"),
        (["check", "{real}", ""], USAGE, "the name is empty"),
        (["recover", ""], USAGE, "the name is empty"),
        (["record", "-o", "", "--", "true"], USAGE, "the name is empty"),
        (["record", "-o", "{empty}", "--only-rid", "", "--", "true"], USAGE, "the name is empty"),
        (["record", "--attach", "", "stop"], USAGE, "the name is empty"),
        (["replay", "--old", "sglang@HEAD", "--repo", ""], USAGE, "the name is empty"),
        (["redact", "{real}", "-o", LONG], BROKEN, f"{LONG}: cannot be written ("),
        ([*BISECT, "--log", LONG], BROKEN, f"{LONG}: cannot be written ("),
        (["replay", "--old", "fxied"], USAGE, "Did you mean 'fixed'?"),
        (["replay", "--old", "0.5.11"], USAGE, "Did you mean 'sglang==0.5.11'?"),
        (["replay", "--old", "old+23465"], USAGE, "Did you mean 23456?"),
        (["replay", "--old", "old+"], USAGE, "not one of the five fixes"),
        (["replay", "--old", "sglang=0.5.11"], USAGE, "sglang==VERSION"),
        (["replay", "--quantity", "kv_commited_len"], USAGE, "kv_committed_len"),
        (["replay", "--nonsense"], USAGE, "--nonsense"),
        (["rpelay"], USAGE, "Did you mean 'replay'?"),
        (["show", "{empty}", "--request", "x"], USAGE, "is a folder"),
        (["show", "{real}", "--request", "nobody"], USAGE, "no such request"),
        (["info"], USAGE, "RECORDING"),
        (["recover", "{empty}/nowhere"], BROKEN, "{empty}/nowhere: no such folder"),
        (["redact", "{empty}", "-o", "x.h5"], USAGE, "is a folder"),
        (["redact", "{real}", "-o", "{real}"], BROKEN, "{real} is the recording itself"),
        (["redact", "{real}", "-o", "{empty}/no/x.h5"], BROKEN, "there is no folder {empty}/no"),
        (["replay", "--repo", "."], USAGE, "--repo .: only a path sglang@REV reads a clone"),
        (["check", "--repo", "."], USAGE, "there is none among observed"),
        (["show", "{real}", "--request", "x", "--repo", "."], USAGE, "among old, fixed, observed"),
        (["paths", "--repo", "."], USAGE, "--repo is for --explain sglang@REV only"),
        (["paths", "--explain", "sglang==0.5.12", "--repo", "."], USAGE, "only a path sglang@REV"),
        (["history", "{real}", "--repo", "."], USAGE, "only a path sglang@REV"),
        (["shrink", "{real}", "-o", "x.h5", "--repo", "."], USAGE, "only a path sglang@REV"),
        ([*TABLE, "--repo", "."], USAGE, "only a path sglang@REV"),
        ([*TABLE, "--old", "old"], USAGE, "--old is for --format pytest only"),
        ([*TABLE, "--fixed", "old"], USAGE, "--fixed is for --format pytest only"),
        (
            [*TABLE[:-1], "pytest", "--path", "old"],
            USAGE,
            "--path is for --format jsonl and parquet",
        ),
        ([*BISECT, "--repo", "."], USAGE, "only a path sglang@REV"),
        ([*BISECT, "--skip", "0.5.14"], USAGE, "--skip 0.5.14: not one of the releases"),
        (["export", "{real}", "-o", "x.csv", "--format", "csv"], USAGE, "'jsonl'"),
        (["export", "{real}", "-o", "{text}", "--format", "jsonl"], BROKEN, "{text} exists"),
    ],
)
def test_bad_input_says_what_where_and_what_to_do(
    arguments: list[str],
    code: int,
    says: str,
    real_recording: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = tmp_path / "text.h5"
    text.write_text("hello")
    empty = tmp_path / "empty"
    empty.mkdir()
    retract = str(bundled() / "0.5.11-stale-retract.h5")
    names = {
        "empty": str(empty),
        "text": str(text),
        "real": str(real_recording),
        "retract": retract,
    }
    assert run([argument.format(**names) for argument in arguments]) == code
    assert says.format(**names) in capsys.readouterr().err


def test_what_cannot_be_read_is_said_and_the_others_are_done(
    real_recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.h5").mkdir()
    for command in ("info", "replay", "check"):
        assert (
            run([command, LONG, f"{tmp_path / LONG}.h5", str(tmp_path), str(real_recording)])
            == BROKEN
        )
        said = capsys.readouterr()
        assert [line.split(": ", 2)[2].split(" (")[0] for line in said.err.splitlines()] == [
            "cannot be read",
            "cannot be read",
            "not a file. Expected a recording",
        ]
        assert real_recording.name in said.out


AS_ANYBODY = [] if os.geteuid() else ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
AS_ANYBODY += AS_ANYBODY and ["--inh-caps=-dac_override,-dac_read_search"]


@pytest.mark.skipif(
    bool(AS_ANYBODY) and shutil.which("setpriv") is None, reason="root may do everything"
)
def test_what_nobody_may_touch_is_said_and_the_others_are_done(
    real_recording: Path, tmp_path: Path
) -> None:
    locked, file, log = (tmp_path / name for name in ("locked", "file.h5", "log"))
    for one in (locked, log):
        one.mkdir()
    file.write_bytes(real_recording.read_bytes())
    inside = locked / "x.h5"
    for one in (inside, log / "x.h5"):
        one.write_bytes(real_recording.read_bytes())
    for one, mode in ((locked, 0), (file, 0), (log, 0o555)):
        one.chmod(mode)

    def said(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [*AS_ANYBODY, *SPECDIFF, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    info = said("info", locked, inside, file, real_recording)
    assert info.returncode == BROKEN and real_recording.name in info.stdout
    for line, path in zip(info.stderr.splitlines(), (locked, inside, file), strict=True):
        assert f"{path}: cannot be read ([Errno 13]" in line
    done = said(*BISECT[:1], real_recording, *BISECT[2:], "--log", log / "log")
    assert done.returncode == BROKEN
    assert done.stderr.startswith(f"specdiff: {log / 'log'}: cannot be written ([Errno 13]")
    locked.chmod(0o755)


def test_a_folder_that_is_no_more_has_no_settings(
    real_recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert run(["replay", str(real_recording), "--old", "fixed"]) == SAME
    assert run(["replay", "x.h5"]) == BROKEN


@pytest.mark.parametrize("command", ["redact", "shrink"])
def test_what_is_made_of_a_recording_is_not_recovered(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "x.h5"
    (tmp_path / "x.h5.tmp").mkdir()  # in its way
    source = str(bundled() / "0.5.11-stale-retract.h5")
    assert run([command, source, "-o", str(target)]) == BROKEN
    (line,) = (one for one in capsys.readouterr().err.splitlines() if "cannot be written" in one)
    assert line.startswith(f"specdiff: {target}: ") and line.endswith("or name another file.")
    assert "recover" not in line


def test_a_name_that_looks_like_markup_is_printed_as_it_is(
    capsys: pytest.CaptureFixture[str], real_recording: Path, tmp_path: Path
) -> None:
    recording = hdf5.load(real_recording)
    rids = tuple(f"[/x] :smile: {qid}\n" for qid in range(len(recording.rids)))
    path = tmp_path / "x.h5"
    run_ = dataclasses.replace(recording.run, command=("[/q]", "x"))
    hdf5.save(dataclasses.replace(recording, rids=rids, run=run_), path)
    assert run(["replay", str(path)]) == DIFFERS
    assert run(["show", str(path), "--request", rids[0]]) == SAME
    assert run(["info", str(path)]) == SAME
    out = capsys.readouterr().out
    assert "request [/x] :smile: 0\\n" in out and "[/q]" in out


def test_what_a_recording_lost_is_said_beside_the_verdict(
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
    """0.5.15 lets the second turn inherit a position that nobody wrote (docs/findings); 0.5.14 does not."""
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


def test_show_tells_a_request_s_life(capsys: pytest.CaptureFixture[str]) -> None:
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
    assert "claimed" not in capsys.readouterr().out  # these books claim nothing


def test_info_says_who_made_it(capsys: pytest.CaptureFixture[str], real_recording: Path) -> None:
    run_ = hdf5.load(real_recording).run
    assert run(["info", str(real_recording)]) == SAME
    out = capsys.readouterr().out
    assert run_.sglang_version in out and "specdiff.fixtures.rig" in out and "whole" in out


def test_a_reader_that_leaves_early_is_no_verdict(real_recording: Path) -> None:
    """`specdiff replay | head -1`: 1 would read as "differs"."""
    script = (
        "import os, sys; os.dup2(int(sys.argv[1]), 1); from specdiff.cli.main import run; "
        "code = run(['replay', sys.argv[2], '--old', 'fixed']); print(code, file=sys.stderr)"
    )
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run(
        [sys.executable, "-u", "-c", script, str(writes), str(real_recording)],
        capture_output=True,
        text=True,
        pass_fds=(writes,),
        check=False,
    )
    os.close(writes)
    assert done.stderr == "141\n" and done.returncode == 0


FULL = "/dev/full"


@pytest.mark.skipif(not os.path.exists(FULL), reason="a device that is always full is Linux's")
@pytest.mark.parametrize(
    ("arguments", "redirected", "code"),
    [
        ("replay {real} --old bogus", f"2>{FULL}", USAGE),
        ("replay {real} --old bogus", "2</dev/null", USAGE),
        ("replay --nonsense", f"2>{FULL}", USAGE),
        ("info {real} no.h5", f"2>{FULL}", BROKEN),
        ("shrink {real} -o {out} --old fixed", f"2>{FULL}", NO_VERDICT),
        ("replay {real}", f">{FULL} 2>&1", BROKEN),
        ("--help", f">{FULL} 2>{FULL}", BROKEN),
        ("record -o {out} -- false", f"2>{FULL}", 1),
    ],
)
def test_what_cannot_be_said_leaves_the_exit_code(
    arguments: str, redirected: str, code: int, real_recording: Path, tmp_path: Path
) -> None:
    words = arguments.format(real=real_recording, out=tmp_path / "out.h5").split()
    done = subprocess.run(["sh", "-c", f'"$@" {redirected}', "sh", *SPECDIFF, *words], check=False)
    assert done.returncode == code


def test_a_reader_of_stderr_that_leaves_early_leaves_the_exit_code(real_recording: Path) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    command = [*SPECDIFF, "replay", str(real_recording), "--old", "bogus"]
    done = subprocess.run(command, stderr=writes, check=False)
    os.close(writes)
    assert done.returncode == USAGE


@pytest.mark.skipif(not os.path.exists(FULL), reason="a device that is always full is Linux's")
@pytest.mark.parametrize(
    ("redirected", "says"),
    [
        (f">{FULL}", "[Errno 28] No space left on device"),
        (">&-", "standard output is closed"),
    ],
)
@pytest.mark.parametrize("arguments", ["info {real}", "replay {real} --format json"])
def test_an_output_that_cannot_be_written_is_said_in_a_line(
    redirected: str, says: str, arguments: str, real_recording: Path
) -> None:
    command = [*SPECDIFF, *arguments.format(real=real_recording).split()]
    done = subprocess.run(
        ["sh", "-c", f'"$@" {redirected}', "sh", *command],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (BROKEN, f"specdiff: {says}.\n")


def test_piped_output_is_plain(real_recording: Path) -> None:
    done = subprocess.run(
        [*SPECDIFF, "replay", str(real_recording)], capture_output=True, text=True, check=False
    )
    assert done.returncode == DIFFERS and done.stderr == ""
    assert "\x1b" not in done.stdout
    assert all(line == line.rstrip() for line in done.stdout.splitlines())


def test_how_to_recover_can_be_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder := tmp_path / "of a server").mkdir()
    (journal := folder / "r-1-0.journal").write_bytes(b"x" * 20)
    for target in (folder, journal):
        assert run(["replay", str(target)]) == BROKEN
        assert f"un `specdiff recover '{folder}'`" in capsys.readouterr().err
    assert run(["info", str(folder)]) == BROKEN
    assert "It holds 1 journal: " in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_an_encoding_lacks_is_escaped(encoding: str, tmp_path: Path) -> None:
    """A file's name, here: it is the verdict that is asked for."""
    recording = Path(os.fsdecode(bytes(tmp_path) + b"/\xce\xbb\xff.h5"))
    shutil.copy(bundled() / "0.5.11-stale-retract.h5", recording)
    done = subprocess.run(
        [*SPECDIFF, "replay", recording],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert done.returncode == DIFFERS and not done.stderr, done.stderr
    assert b"\\udcff.h5  differs" in done.stdout


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    "words", [["replay", "{one}"], ["replay", "{folder}"], ["check", "{one}"], ["info", "{one}"]]
)
def test_a_narrow_terminal_cuts_nothing_short(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request is named in whole, and a count has all its digits: "129..." is another number."""
    for name in ("20261122-031103-0.5.10-e521cd-pid13000-0.h5", "x.h5"):
        shutil.copy(bundled() / "0.5.10-random.h5", tmp_path / name)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", terminal := _Terminal())
    run([word.format(one=tmp_path / "x.h5", folder=tmp_path) for word in words])
    monkeypatch.undo()
    said = terminal.getvalue()
    assert len(said) > 1000 and "\u2026" not in said


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


def test_a_terminal_is_told_what_is_worked_on_and_a_file_is_not(tmp_path: Path) -> None:
    """What goes to stdout is the same whether or not somebody looks at stderr."""
    recording = str(min(bundled().glob("*.h5")))
    command = [*SPECDIFF, "check", recording, str(tmp_path / "none.h5")]
    piped = subprocess.run(command, capture_output=True, check=False)
    ours, theirs = os.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "400"}
    with (tmp_path / "out").open("wb") as out:
        done = subprocess.run(command, stdout=out, stderr=theirs, env=env, check=False)
    os.close(theirs)
    shown = os.read(ours, 1 << 16)
    os.close(ours)
    assert (tmp_path / "out").read_bytes() == piped.stdout and done.returncode == piped.returncode
    name = Path(recording).name.encode()
    assert name in shown and name not in piped.stderr
    before, _, _ = shown.partition(b"specdiff: ")
    assert not before.rpartition(b"\x1b[2K")[2].strip()  # the line is clear by then
