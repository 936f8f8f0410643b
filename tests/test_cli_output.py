"""Where the commands' output goes: closed pipes, full disks, limited encodings, terminals."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from children import SPECDIFF, python, specdiff
from served_answers import OLD
from served_answers import path as served
from specdiff.cli.inputs import bundled
from specdiff.cli.main import BROKEN, DIFFERS, NO_VERDICT, SAME, USAGE, run
from specdiff.cli.report_runs import difference
from specdiff.recorders import hdf5
from specdiff.recorders.schema import Kind
from specdiff.replay.aligned import RankDifference


def test_a_reader_that_leaves_early_gives_exit_code_141(real_recording: Path) -> None:
    """As in `specdiff replay | head -1`. Exit code 1 would read as "differs"."""
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


@pytest.mark.skipif(not os.path.exists(FULL), reason="only Linux has /dev/full")
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
def test_messages_that_cannot_be_written_do_not_change_the_exit_code(
    arguments: str, redirected: str, code: int, real_recording: Path, tmp_path: Path
) -> None:
    words = arguments.format(real=real_recording, out=tmp_path / "out.h5").split()
    done = subprocess.run(["sh", "-c", f'"$@" {redirected}', "sh", *SPECDIFF, *words], check=False)
    assert done.returncode == code


def test_a_closed_stderr_does_not_change_the_exit_code(real_recording: Path) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    command = [*SPECDIFF, "replay", str(real_recording), "--old", "bogus"]
    done = subprocess.run(command, stderr=writes, check=False)
    os.close(writes)
    assert done.returncode == USAGE


@pytest.mark.skipif(not os.path.exists(FULL), reason="only Linux has /dev/full")
@pytest.mark.parametrize(
    ("redirected", "says"),
    [
        (f">{FULL}", "[Errno 28] No space left on device"),
        (">&-", "standard output is closed"),
    ],
)
@pytest.mark.parametrize("arguments", ["info {real}", "replay {real} --format json"])
def test_an_output_that_cannot_be_written_is_reported_in_one_line(
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


FULL = """
import resource, sys
from specdiff.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))
sys.exit(main())
"""


@pytest.mark.parametrize(("before", "link"), [(None, False), ("old", True)])
def test_an_export_that_does_not_fit_on_the_disk_leaves_what_was_there(
    before: str | None, link: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    path = folder / "x.toml"
    if link:
        path.symlink_to(folder / "linked.toml")
    if before is not None:
        path.write_text(before)
        path.chmod(0o600)
    there = {one.name: one.is_symlink() for one in folder.iterdir()}
    words = ["export", str(bundled() / "0.5.23-random.h5"), "--format", "scenario", "-o", str(path)]
    done = python(FULL, *words, "--force")
    assert done.returncode == 128 and "File too large" in done.stderr, done.stderr
    assert {one.name: one.is_symlink() for one in folder.iterdir()} == there
    assert before is None or path.read_text() == before
    assert specdiff(*words, "--force").returncode == 0
    assert path.is_symlink() is link and len(path.read_text()) > 512
    assert before is None or stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {one.name for one in folder.iterdir()} == {"x.toml", *(["linked.toml"] if link else [])}


def test_an_export_can_go_into_a_pipe(tmp_path: Path) -> None:
    words = ["export", str(bundled() / "0.5.23-random.h5"), "--format", "scenario", "--force"]
    os.mkfifo(tmp_path / "x.toml")
    with subprocess.Popen(["cat", tmp_path / "x.toml"], stdout=subprocess.PIPE, text=True) as cat:
        assert specdiff(*words, "-o", tmp_path / "x.toml").returncode == 0
        assert len(cat.communicate()[0]) > 512
    assert (tmp_path / "x.toml").is_fifo()
    (tmp_path / "y.toml").symlink_to("/dev/stdout")
    assert len(specdiff(*words, "-o", tmp_path / "y.toml").stdout) > 512


def test_piped_output_is_plain(real_recording: Path) -> None:
    done = subprocess.run(
        [*SPECDIFF, "replay", str(real_recording)], capture_output=True, text=True, check=False
    )
    assert done.returncode == DIFFERS and done.stderr == ""
    assert "\x1b" not in done.stdout
    assert all(line == line.rstrip() for line in done.stdout.splitlines())


def test_recordings_without_a_difference_have_no_table_of_fixes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    same, differs = (
        str(bundled() / f"{name}.h5") for name in ("0.5.23-random", "0.5.12-stale-stop")
    )
    assert run(["replay", same, same, "--old", "observed"]) == SAME
    out = capsys.readouterr().out
    assert "shown first in" not in out and "Counts: " not in out
    assert run(["replay", same, differs, "--old", "observed"]) == DIFFERS
    out = capsys.readouterr().out
    assert "shown first in" in out and "Counts: " in out


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_characters_that_the_encoding_lacks_are_escaped(encoding: str, tmp_path: Path) -> None:
    """Here it is a file name. The command must still reach its verdict."""
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


def test_long_request_ids_are_shortened_in_text_and_whole_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Clients choose ids of any length. Ids of 3,000 characters pushed all else off the screen."""
    filler = 3000 * "x"
    recording = hdf5.load(served(OLD))
    rids = tuple(f"a{filler}{rid}" for rid in recording.rids)
    path, responses = tmp_path / "long.h5", tmp_path / "responses.jsonl"
    hdf5.save(dataclasses.replace(recording, rids=rids), path)
    lines = served(OLD).with_suffix(".jsonl").read_text()
    renamed = re.sub(r'("id": ?")(http-)', rf"\1a{filler}\2", lines)
    responses.write_text(renamed + lines.splitlines()[0] + "\n")

    reconcile = ["reconcile", str(path), str(responses)]
    commands = [reconcile, ["replay", str(path)], ["check", str(path)]]
    for command in commands:
        assert run(command) == DIFFERS
        said = capsys.readouterr().out
        assert max(map(len, said.splitlines())) < 1000, command
        shown = re.findall(r"a(?:x|\.)+http-\d+-\d+", said)
        assert shown and {len(rid) for rid in shown} == {100}, command

    # What reports print can be given to `show`, and so can the whole id.
    whole = next(rid for rid in rids if rid.endswith(shown[0].rpartition(".")[2]))
    assert run(["show", str(path), "--request", shown[0]]) == SAME
    said = capsys.readouterr().out
    assert said.startswith(f"request {shown[0]}\n")
    assert run(["show", str(path), "--request", whole]) == SAME
    assert capsys.readouterr().out == said
    assert run(["show", str(path), "--request", f"b{whole}"]) == USAGE
    assert len(capsys.readouterr().err) < 1000

    assert run([*reconcile, "--format", "json"]) == DIFFERS
    (first, *_) = json.loads(capsys.readouterr().out)["facts"]["trainer"]["differences"]
    assert first["rid"] in rids

    told = RankDifference(1, 2, Kind.RESULT, rids[0], "request", rids[1], rids[2])
    assert len(difference(told)) < 400


def test_progress_is_shown_on_a_terminal_only(tmp_path: Path) -> None:
    """stdout gets the same bytes whether or not stderr is a terminal."""
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
    # The progress line was cleared before the error was printed.
    assert not before.rpartition(b"\x1b[2K")[2].strip()
