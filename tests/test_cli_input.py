"""Bad input: damaged or unreadable files, and names that look like something else."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from children import SPECDIFF
from specdiff.cli.inputs import bundled
from specdiff.cli.main import BROKEN, DIFFERS, SAME, USAGE, run
from specdiff.recorders import hdf5

LONG = f"{300 * 'x'}.h5"
TABLE = ["export", "{real}", "-o", "{empty}/x.jsonl", "--format", "jsonl"]
BISECT = ["bisect", "{retract}", "--good", "sglang==0.5.11", "--bad", "sglang==0.5.12"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["replay", "no/such/file.h5"], BROKEN, "no/such/file.h5: no such file"),
        (["replay", "{empty}"], BROKEN, "this folder contains no recordings (*.h5)"),
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
        (["replay", "--old", "expcted"], USAGE, "Did you mean 'expected'?"),
        (["replay", "--old", "obsrved-22651"], USAGE, "Did you mean 'observed'?"),
        (
            ["replay", "--old", "expected-22651"],
            USAGE,
            "No fix can be added to expected or removed",
        ),
        (
            ["replay", "--old", "observed+22651"],
            USAGE,
            "No fix can be added to observed or removed",
        ),
        (["replay", "--old", "0.5.11"], USAGE, "Did you mean 'sglang==0.5.11'?"),
        (["replay", "--old", "old+23465"], USAGE, "Did you mean 23456?"),
        (["replay", "--old", "old+"], USAGE, "the number of a fix is missing"),
        (["replay", "--old", "sglang=0.5.11"], USAGE, "sglang==VERSION"),
        (["replay", "--quantity", "kv_commited_len"], USAGE, "kv_committed_len"),
        (["replay", "--nonsense"], USAGE, "--nonsense"),
        (["rpelay"], USAGE, "Did you mean 'replay'?"),
        (["show", "{empty}", "--request", "x"], USAGE, "is a folder"),
        (["show", "{real}", "--request", "nobody"], USAGE, "no such request"),
        (["info"], USAGE, "RECORDING"),
        (["recover", "{empty}/nowhere"], BROKEN, "{empty}/nowhere: no such folder"),
        (["redact", "{empty}", "-o", "x.h5"], USAGE, "is a folder"),
        (
            ["redact", "{real}", "-o", "{empty}/x.toml"],
            USAGE,
            "x.toml: the name of a recording must end in .h5",
        ),
        (
            ["shrink", "{real}", "-o", "{empty}/x.txt"],
            USAGE,
            "x.txt: the name of a recording must end in .h5",
        ),
        (["shrink", "{real}", "-o", "{empty}/x"], USAGE, "must end in .h5"),
        (["history", "x.toml"], USAGE, "x.toml: a scenario has no recorded books"),
        (
            ["bisect", "x.toml", *BISECT[2:]],
            USAGE,
            "Name a law to check as it is played: --law NAME.",
        ),
        (["redact", "{real}", "-o", "{real}"], BROKEN, "{real} is the input file itself"),
        (
            ["redact", "{real}", "-o", "{empty}/no/x.h5"],
            BROKEN,
            "the folder {empty}/no does not exist",
        ),
        (["replay", "--repo", "."], USAGE, "--repo .: only a path sglang@REV reads a clone"),
        (["check", "--repo", "."], USAGE, "and observed is not of that form"),
        (
            ["show", "{real}", "--request", "x", "--repo", "."],
            USAGE,
            "and old, expected, observed are not of that form",
        ),
        (["paths", "--repo", "."], USAGE, "--repo can only be used with --explain sglang@REV"),
        (["paths", "--explain", "sglang==0.5.12", "--repo", "."], USAGE, "only a path sglang@REV"),
        (["history", "{real}", "--repo", "."], USAGE, "only a path sglang@REV"),
        (["shrink", "{real}", "-o", "x.h5", "--repo", "."], USAGE, "only a path sglang@REV"),
        ([*TABLE, "--repo", "."], USAGE, "only a path sglang@REV"),
        ([*TABLE, "--old", "old"], USAGE, "--old can only be used with --format pytest"),
        ([*TABLE, "--fixed", "old"], USAGE, "--fixed can only be used with --format pytest"),
        (
            [*TABLE[:-1], "pytest", "--path", "old"],
            USAGE,
            "--path can only be used with --format jsonl or parquet",
        ),
        ([*BISECT, "--repo", "."], USAGE, "only a path sglang@REV"),
        ([*BISECT, "--skip", "0.5.14"], USAGE, "--skip 0.5.14: not a release between the ends"),
        (["export", "{real}", "-o", "x.csv", "--format", "csv"], USAGE, "'jsonl'"),
        (
            ["export", "{real}", "-o", "{text}", "--format", "jsonl"],
            BROKEN,
            "{text} already exists",
        ),
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


def test_unreadable_recordings_are_reported_and_the_others_processed(
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
def test_forbidden_files_are_reported_and_the_others_processed(
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


def test_commands_work_in_a_working_folder_that_was_deleted(
    real_recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert run(["replay", str(real_recording), "--old", "fixed"]) == SAME
    assert run(["replay", "x.h5"]) == BROKEN


@pytest.mark.parametrize("command", ["redact", "shrink"])
def test_a_failed_redact_or_shrink_does_not_suggest_recover(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / f"{'x' * 250}.h5"  # the name of the temporary file is even longer, too long
    source = str(bundled() / "0.5.11-stale-retract.h5")
    assert run([command, source, "-o", str(target)]) == BROKEN
    (line,) = (one for one in capsys.readouterr().err.splitlines() if "cannot be written" in one)
    assert line.startswith(f"specdiff: {target}: ") and line.endswith("or choose another name.")
    assert "recover" not in line


def test_a_name_that_looks_like_markup_is_printed_literally(
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


def test_the_suggested_recover_command_is_quoted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder := tmp_path / "of a server").mkdir()
    (journal := folder / "r-1-0.journal").write_bytes(b"x" * 20)
    for target in (folder, journal):
        assert run(["replay", str(target)]) == BROKEN
        assert f"un `specdiff recover '{folder}'`" in capsys.readouterr().err
    assert run(["info", str(folder)]) == BROKEN
    assert "It contains 1 journal: " in capsys.readouterr().err


@pytest.mark.parametrize("command", ["info", "replay", "check"])
def test_journals_beside_the_recordings_of_a_folder_are_not_passed_over_in_silence(
    command: str, real_recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A crashed server leaves them, next to the recordings that were built before."""
    (folder := tmp_path / "of a server").mkdir()
    (folder / "x.h5").write_bytes(real_recording.read_bytes())
    whole = run([command, str(folder)])
    assert not capsys.readouterr().err
    (folder / "r-1-0.journal").write_bytes(b"x" * 20)
    (folder / "r-1-1.journal").mkdir()  # a ring
    assert run([command, str(folder)]) == whole
    said = capsys.readouterr()
    assert "x.h5" in said.out
    assert said.err == (
        f"specdiff: {folder}: left out here: 2 journals, of which no recording was built yet. "
        f"When the server has ended, run `specdiff recover '{folder}'`.\n"
    )


def test_an_id_with_control_characters_is_found_as_it_is_printed(
    real_recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No shell can pass a NUL, and an id must not write to the terminal of whoever looks for it."""
    recording = hdf5.load(real_recording)
    odd = tuple(f"\x1b[31m\n\0{qid}" for qid in range(len(recording.rids)))
    hdf5.save(dataclasses.replace(recording, rids=odd), path := tmp_path / "x.h5")
    for wrong, says in (("nobody", "such as"), ("31m\\n\\x009", "nearest ids are")):
        assert run(["show", str(path), "--request", wrong]) == USAGE
        assert f"{says} \\x1b[31m\\n\\x00" in capsys.readouterr().err
    assert run(["show", str(path), "--request", "\\x1b[31m\\n\\x001"]) == SAME
    assert capsys.readouterr().out.startswith("request \\x1b[31m\\n\\x001\n")


def test_a_message_writes_no_control_characters_to_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["replay", "\a\x9b31m.h5"]) == BROKEN
    assert capsys.readouterr().err.startswith("specdiff: \\x07\\x9b31m.h5: no such file")


@pytest.mark.parametrize("ring", [False, True])
def test_a_journal_that_is_named_instead_of_its_folder_is_called_a_journal(
    ring: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A ring's journal is a folder: it must not count as one in which there is nothing to recover."""
    journal = tmp_path / "r-1-0.journal"
    if ring:
        journal.mkdir()
        (journal / "00000001.segment").write_bytes(b"x" * 20)
    else:
        journal.write_bytes(b"x" * 20)
    for command in ("recover", "info"):
        assert run([command, str(journal)]) == BROKEN
        assert capsys.readouterr().err == (
            f"specdiff: {journal}: a journal, not yet a recording. Run `specdiff recover {tmp_path}`.\n"
        )
    (file := tmp_path / "x").write_text("")
    assert run(["recover", str(file)]) == BROKEN
    assert f"{file}: not a folder. Expected the DIR of" in capsys.readouterr().err
