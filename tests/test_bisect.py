"""`bisect` and `history` over real recordings, real releases and a real clone."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from children import SPECDIFF
from clones import clone, commit, git
from documented import documented_keys
from lifting import files_of, write_tree
from specdiff.cli.inputs import bundled
from specdiff.cli.main import BROKEN, DIFFERS, INTERRUPTED, NO_VERDICT, SAME, USAGE, run
from specdiff.cli.progress_bisect import Narrowing, bracket
from specdiff.replay.bisect.judge import Finding, JudgedCandidate
from specdiff.replay.bisect.search import SearchProgress
from specdiff.replay.spec import Lifted, Origin

MIX = str(bundled() / "0.5.10-random.h5")
RELEASES = ["0.5.10", "0.5.11", "0.5.12", "0.5.13"]


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def bisected(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = run(["bisect", MIX, *arguments, "--format", "json"])
    out = capsys.readouterr()
    assert out.out, out.err
    return code, json.loads(out.out)


@pytest.mark.parametrize(
    ("fix", "quantity", "good", "release", "role"),
    [
        (22651, "kv_committed_len", "0.5.10", "0.5.11", "prepare"),
        (23456, "spec_verify_ct", "0.5.10", "0.5.12", "resolve"),
        (24851, "routed_experts", "0.5.10", "0.5.12", "experts"),
        (25818, "seq_lens_sum", "0.5.11", "0.5.13", "filter"),
        (26126, "routed_experts", "0.5.12", "0.5.13", "experts"),
    ],
)
def test_each_fix_is_found_in_its_release(
    fix: int,
    quantity: str,
    good: str,
    release: str,
    role: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Over one random mix, bisect names the release, the function and the fix that explains it."""
    ends = ["--good", f"sglang=={good}", "--bad", "sglang==0.5.13", "--quantity", quantity]
    code, told = bisected(capsys, *ends)
    assert code == DIFFERS
    assert told.keys() == documented_keys("bisect.md", "## Exit codes and JSON")
    assert told["tested"][0].keys() == {"path", "verdict", "code_digest", "why"}
    assert told["roles"][0].keys() == {"role", "causes_change_alone", "diff"}
    assert told["first_changed"] == f"sglang=={release}"
    assert [fix] in told["first"]["fixes"]
    assert role in [one["role"] for one in told["roles"] if one["causes_change_alone"]]
    assert told["first"]["quantity"] == quantity
    assert told["compared"] > 0 and not told["assumes_one_change"]
    by_path = {one["path"]: one["verdict"] for one in told["tested"]}
    assert by_path[f"sglang=={good}"] == "good"
    assert by_path[f"sglang=={release}"] == "bad"


def test_the_release_that_fixed_it_is_found_with_the_ends_swapped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ends = ["--good", "sglang==0.5.13", "--bad", "sglang==0.5.10"]
    _, told = bisected(capsys, *ends, "--quantity", "spec_verify_ct", "--against", "fixed")
    assert told["first_changed"] == "sglang==0.5.12"
    assert told["last_before"] == "sglang==0.5.11"
    assert told["against"] == "fixed"


def test_the_report_names_the_path_that_decides(capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise one that leaves out what the path does not compute reads as if the ends were equal."""
    newest = str(bundled() / "0.5.23-random.h5")
    ends = ["--good", "sglang==0.5.21", "--bad", "sglang==0.5.22"]
    assert run(["bisect", newest, *ends]) == DIFFERS  # released_len
    assert "(good) to sglang==0.5.22 (bad)\n" in capsys.readouterr().out
    assert run(["bisect", newest, *ends, "--against", "expected"]) == SAME
    out = capsys.readouterr().out
    assert "(bad), against expected (fixed-22651)\n" in out
    assert run(["bisect", newest, *ends, "--format", "json"]) == DIFFERS
    assert json.loads(capsys.readouterr().out)["against"] is None


def test_a_good_end_that_is_not_good_gives_no_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    ends = ["--good", "sglang==0.5.10", "--bad", "sglang==0.5.13", "--against", "fixed"]
    assert run(["bisect", MIX, *ends]) == NO_VERDICT
    assert "sglang==0.5.10 is not good: it differs from fixed" in capsys.readouterr().err


def test_no_version_is_named_if_nothing_differs(capsys: pytest.CaptureFixture[str]) -> None:
    ends = ["--good", "sglang==0.5.10", "--bad", "sglang==0.5.10.post1"]
    assert run(["bisect", MIX, *ends]) == SAME
    said = capsys.readouterr().out
    assert "values compared, none differ" in said and "specdiff history" in said
    assert "first changed" not in said


@pytest.mark.parametrize("quantity", [(), ("--quantity", "finish", "--quantity", "seq_lens_sum")])
def test_the_suggested_history_command_runs_as_printed(
    quantity: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """The good end is the newer version. The command runs `history` for the same quantities."""
    ends = ["--good", "sglang==0.5.10.post1", "--bad", "sglang==0.5.10", *quantity]
    assert run(["bisect", MIX, *ends]) == SAME
    (line,) = re.findall(r"specdiff (history .*)", capsys.readouterr().out)
    words = shlex.split(line)
    assert run(words) == SAME and sorted(words[6:]) == sorted(quantity)
    assert run(["bisect", MIX, "--good", "sglang==0.5.10", "--bad", "sglang==0.5.10"]) == SAME
    assert "specdiff history" not in capsys.readouterr().out  # one version has no history


@pytest.mark.parametrize(
    ("good", "bad", "says"),
    [
        ("observed", "sglang==0.5.11", "neither a release nor a commit"),
        ("sglang==0.5.11", "old+23456", "neither a release nor a commit"),
        ("sglang==0.5.11", "sglang@HEAD", "--repo"),
    ],
)
def test_ends_that_are_not_two_releases_or_two_commits_are_refused(
    good: str, bad: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bisect", MIX, "--good", good, "--bad", bad]) == USAGE
    assert says in capsys.readouterr().err


def test_bisect_of_a_clone_writes_a_log_that_git_replays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Releases are commits, with other commits in between.

    The range is narrowed to one commit, and git agrees.
    """
    repo = clone(made(tmp_path / "repo"), RELEASES)
    log = tmp_path / "log"
    ends = ["--good", "sglang@v0.5.10", "--bad", "sglang@v0.5.13", "--repo", str(repo)]
    quantity = ["--quantity", "spec_verify_ct"]
    code, told = bisected(capsys, *ends, *quantity, "--log", str(log))
    assert code == DIFFERS
    fix = git(repo, "rev-parse", "v0.5.12")
    assert told["first_changed"] == f"sglang@{fix}"
    assert told["assumes_one_change"]
    assert len(told["tested"]) < 7 + 1
    replayed = git(repo, "bisect", "replay", str(log))
    assert f"{fix} is the first bad commit" in replayed


@pytest.mark.parametrize(
    ("origin", "says"),
    [
        (Origin.REVISION, "# x: half a reason git bisect bad y"),
        (Origin.RELEASE, "skipped x  # half"),
    ],
)
def test_the_reason_for_a_skip_is_one_comment_line_in_the_log(
    origin: Origin, says: str, tmp_path: Path
) -> None:
    """git runs every line of a log that is not a comment, and a reason may have several lines."""
    path, log = Lifted("x", origin, "x"), tmp_path / "log"
    tested = JudgedCandidate(path, Finding.SKIPPED, None, "half a reason\ngit bisect bad y\n")
    with Narrowing("r.h5", path, path, (), log) as report:
        report(SearchProgress(tested, 2, (0, 1), (path, path)))
    told = log.read_text().splitlines()
    assert any(line.startswith(says) for line in told)
    assert not any(line.startswith("git bisect bad y") for line in told)


def test_git_replays_a_log_with_a_skipped_commit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only 0.5.12, which made the change, is skipped.

    So git too can only say that it is one of two commits.
    """
    repo = clone(made(tmp_path / "repo"), ["0.5.11", "0.5.12"])
    log = tmp_path / "log"
    ends = ["--good", "sglang@behind-0.5.11", "--bad", "sglang@behind-0.5.12", "--repo", str(repo)]
    skip = ["--skip", "v0.5.12", "--log", str(log)]
    _, told = bisected(capsys, *ends, "--quantity", "spec_verify_ct", *skip)
    range_ = [git(repo, "rev-parse", name) for name in ("v0.5.12", "behind-0.5.12")]
    assert told["range"] == [f"sglang@{name}" for name in range_]
    command = ["git", "-C", str(repo), "bisect", "replay", str(log)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "only 'skip'ped commits left" in done.stdout
    assert set(range_) <= set(done.stdout.split())


def test_a_search_for_a_fix_writes_a_log_that_git_replays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repo = clone(made(tmp_path / "repo"), RELEASES)
    log = tmp_path / "log"
    ends = ["--good", "sglang@v0.5.13", "--bad", "sglang@v0.5.10", "--repo", str(repo)]
    _, told = bisected(capsys, *ends, "--quantity", "spec_verify_ct", "--log", str(log))
    fix = git(repo, "rev-parse", "v0.5.12")
    assert told["first_changed"] == f"sglang@{fix}"
    assert f"{fix} is the first fixed commit" in git(repo, "bisect", "replay", str(log))


def test_the_resume_command_of_an_interrupted_search_keeps_its_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All quantities change with 0.5.11, this one with 0.5.12.

    A command that dropped it would give another answer.
    """
    repo = clone(made(tmp_path / "repo"), RELEASES)
    ends = ["--good", "sglang@v0.5.10", "--bad", "sglang@v0.5.13", "--repo", str(repo)]
    real = Narrowing.__call__

    def stopped(self: Narrowing, progress: SearchProgress) -> None:
        real(self, progress)
        if progress.tested is not None:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Narrowing, "__call__", stopped)
        asked = ["--quantity", "spec_verify_ct", "--skip", "v0.5.11"]
        assert run(["bisect", MIX, *ends, *asked]) == INTERRUPTED
    said = capsys.readouterr().err.splitlines()[-1]
    _, command = said.split("To continue: specdiff ")
    skipped = git(repo, "rev-parse", "v0.5.11")
    assert command.endswith(f" --skip {skipped}")
    assert run([*shlex.split(command), "--format", "json"]) == DIFFERS
    told = json.loads(capsys.readouterr().out)
    assert told["first_changed"] == f"sglang@{git(repo, 'rev-parse', 'v0.5.12')}"
    assert told["quantities"] == ["spec_verify_ct"]


def test_a_named_quantity_that_was_not_compared_gives_no_verdict(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ends = ["--good", "sglang==0.5.10", "--bad", "sglang==0.5.10.post1"]
    named = ["--quantity", "spec_verify_ct", "--quantity", "session_committed"]
    assert run(["bisect", MIX, *ends, *named]) == NO_VERDICT
    assert "no values of session_committed could be compared" in capsys.readouterr().err


def test_a_commit_that_cannot_be_judged_leaves_a_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repo = clone(made(tmp_path / "repo"), ["0.5.11"])
    resolve = repo / "python/sglang/srt/managers/scheduler_output_processor_mixin.py"
    text = resolve.read_text()
    resolve.write_text("def broken(:\n")
    commit(repo, "does not parse")
    resolve.write_text(text.replace("req.spec_verify_ct += 1", "req.spec_verify_ct += 2"))
    commit(repo, "counts twice")
    ends = ["--good", "sglang@v0.5.11", "--bad", "sglang@main", "--repo", str(repo)]
    _, told = bisected(capsys, *ends)
    names = git(repo, "rev-list", "--reverse", "behind-0.5.11..main").split()
    assert told["first_changed"] is None
    assert told["range"] == [f"sglang@{name}" for name in names]
    assert [one["verdict"] for one in told["tested"] if one["path"] == f"sglang@{names[0]}"] == [
        "skipped"
    ]


def test_only_the_first_divergences_own_quantity_names_the_function(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """0.5.13 also changed prepare, and other sums differ from the same event on."""
    _, told = bisected(capsys, "--good", "sglang==0.5.12", "--bad", "sglang==0.5.13")
    assert told["first"]["quantity"] == "routed_experts"
    assert [one["role"] for one in told["roles"] if one["causes_change_alone"]] == ["experts"]


def test_a_release_may_be_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    ends = ["--good", "sglang==0.5.10", "--bad", "sglang==0.5.12", "--skip", "sglang==0.5.11"]
    _, told = bisected(capsys, *ends)
    assert told["first_changed"] is None
    assert told["range"] == ["sglang==0.5.11", "sglang==0.5.12"]


def test_existing_logs_and_recordings_are_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording, log = tmp_path / "x.h5", tmp_path / "log"
    recording.write_bytes(Path(MIX).read_bytes())
    ends = ["--good", "sglang==0.5.10", "--bad", "sglang==0.5.11"]
    for target in (recording, log):
        log.write_text("mine")
        assert run(["bisect", str(recording), *ends, "--log", str(target)]) == BROKEN
        said = capsys.readouterr().err
        # `bisect` has no --force.
        assert "already exists. Choose another name." in said and "--force" not in said
    assert log.read_text() == "mine" and recording.read_bytes() == Path(MIX).read_bytes()
    assert run(["bisect", str(recording), *ends, "--log", str(tmp_path / "no" / "log")]) == BROKEN
    for made in (["redact"], ["shrink"], ["export", "--format", "jsonl"]):
        assert run([*made, str(recording), "-o", str(recording), "--force"]) == BROKEN
    assert recording.read_bytes() == Path(MIX).read_bytes()
    assert run(["history", str(tmp_path)]) == USAGE
    assert "is a folder" in capsys.readouterr().err


def test_history_of_a_quantity_that_was_not_captured_has_no_verdict(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ends = ["--from", "sglang==0.5.10", "--to", "sglang==0.5.12"]
    assert run(["history", MIX, *ends, "--quantity", "session_committed"]) == NO_VERDICT
    assert "4 versions: nothing could be compared.\n" in capsys.readouterr().out
    same = ["--from", "sglang==0.5.9", "--to", "sglang==0.5.10", "--quantity", "spec_verify_ct"]
    assert run(["history", MIX, *same]) == SAME
    assert run(["history", MIX, *same, "--quantity", "session_committed"]) == NO_VERDICT
    assert "no values of session_committed could be compared." in capsys.readouterr().err
    run(["history", MIX, *ends, "--quantity", "session_committed", "--format", "json"])
    told = json.loads(capsys.readouterr().out)["versions"]
    assert {one["compared"] for one in told} == {0}
    assert told[-1]["summary"] == "nothing could be compared"


def test_history_of_versions_with_the_same_code_is_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing is replayed, and that is still a verdict: the same code has the same books."""
    ends = ["--from", "sglang==0.5.15", "--to", "sglang==0.5.15.post1"]
    assert run(["history", MIX, *ends]) == SAME
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith(
        "same books from sglang==0.5.15 to sglang==0.5.15.post1: 2 versions with the same code"
    )
    assert run(["history", MIX, *ends, "--quantity", "session_committed"]) == NO_VERDICT


def test_history_lists_every_change(capsys: pytest.CaptureFixture[str]) -> None:
    ends = ["--from", "sglang==0.5.10", "--to", "sglang==0.5.13"]
    assert run(["history", MIX, *ends, "--format", "json"]) == DIFFERS
    told = json.loads(capsys.readouterr().out)["versions"]
    schema = json.loads((Path(__file__).parent.parent / "docs" / "replay.schema.json").read_text())
    for one in told:  # as docs/bisect.md promises
        assert one.keys() == documented_keys("bisect.md", "## History")
        for quantity in one["quantities"].values():
            jsonschema.validate(quantity, {**schema, "type": "object", "$ref": "#/$defs/quantity"})
    changed = {one["path"]: set(one["quantities"]) for one in told if one["changed"]}
    assert changed.keys() == {f"sglang=={version}" for version in RELEASES[1:]}
    assert changed["sglang==0.5.13"] == {"seq_lens_sum", "routed_experts"}
    assert run(["history", MIX, *reversed_ends(ends)]) == USAGE


def reversed_ends(ends: list[str]) -> list[str]:
    return ["--from", ends[3], "--to", ends[1]]


def test_replay_is_a_script_for_git_bisect_run(tmp_path: Path) -> None:
    """git reads exit codes 0, 1 and 125 as specdiff means them."""
    repo = clone(made(tmp_path / "repo"), RELEASES)
    git(repo, "bisect", "start", "v0.5.13", "v0.5.10")
    script = [*SPECDIFF, "replay", MIX, "--old", "sglang==0.5.10", "--fixed", "./python"]
    done = subprocess.run(
        ["git", "-C", str(repo), "bisect", "run", *script, "--quantity", "spec_verify_ct"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{git(repo, 'rev-parse', 'v0.5.12')} is the first bad commit" in done.stdout


def test_the_bracket_narrows() -> None:
    assert bracket((0, 9), 10) == "[##########]"
    assert bracket((3, 5), 10) == "[...###....]"
    assert bracket((150, 150), 300) == "[" + "." * 20 + "#" + "." * 19 + "]"


def moved_away_and_back(repo: Path) -> Path:
    """Make a clone with v0.5.11, then a commit without sglang, then 0.5.12, tagged `back`."""
    clone(repo, ["0.5.11"])
    (repo / "python").rename(repo / "elsewhere")
    commit(repo, "away")
    git(repo, "tag", "away")
    shutil.rmtree(repo / "elsewhere")
    write_tree(repo, files_of("0.5.12"))
    commit(repo, "back")
    git(repo, "tag", "back")
    return repo


def test_a_commit_without_sglang_is_skipped_unless_it_is_an_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repo = moved_away_and_back(made(tmp_path / "repo"))
    clones = ["--repo", str(repo)]
    away, back = (f"sglang@{git(repo, 'rev-parse', name)}" for name in ("away", "back"))
    named = ["--quantity", "spec_verify_ct", *clones]
    code, told = bisected(capsys, "--good", "sglang@v0.5.11", "--bad", "sglang@back", *named)
    assert code == DIFFERS
    assert told["range"] == [away, back]
    (passed,) = [one for one in told["tested"] if one["path"] == away]
    assert passed["verdict"] == "skipped" and "holds no sglang" in passed["why"]

    ends = ["--from", "sglang@v0.5.11", "--to", "sglang@back", *clones]
    assert run(["history", MIX, *ends, "--format", "json"]) == DIFFERS
    versions = json.loads(capsys.readouterr().out)["versions"]
    assert [one["summary"] for one in versions] == ["the first", "skipped", "changed"]

    for older, newer in (("away", "back"), ("v0.5.11", "away")):
        for command, one, other in (("history", "--from", "--to"), ("bisect", "--good", "--bad")):
            ends = [one, f"sglang@{older}", other, f"sglang@{newer}", *clones]
            if command == "bisect":
                ends += ["--against", "sglang==0.5.11"]
            assert run([command, MIX, *ends]) == USAGE
            said = capsys.readouterr().err
            assert "holds no sglang" in said and "of 3" not in said


def test_a_commit_subject_that_is_not_utf8_is_printed_safely(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repo = clone(made(tmp_path / "repo"), ["0.5.11"])
    write_tree(repo, files_of("0.5.12"))
    commit(repo, "Fix cafe")
    raw = tmp_path / "commit"  # as other tools write them; `git commit` would turn it into text
    told = git(repo, "cat-file", "commit", "main").encode()
    raw.write_bytes(told.replace(b"cafe", b"caf\xe9 \x1b[31mred"))
    made_of_bytes = git(repo, "hash-object", "-t", "commit", "-w", str(raw))
    ends = ["--good", "sglang@v0.5.11", "--bad", f"sglang@{made_of_bytes}", "--repo", str(repo)]
    assert run(["bisect", MIX, *ends, "--quantity", "spec_verify_ct"]) == DIFFERS
    said = capsys.readouterr().out
    assert "Fix caf\N{REPLACEMENT CHARACTER} \\x1b[31mred\n" in said
    assert "\x1b" not in said


def test_suggested_commands_run_as_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clone, and with names that need quoting in a shell."""
    repo = clone(made(tmp_path / "my clone"), ["0.5.11", "0.5.12"])
    recording, small = tmp_path / "a mix.h5", tmp_path / "a part.h5"
    recording.write_bytes((bundled() / "0.5.11-stale-stop.h5").read_bytes())
    clones = ["--repo", str(repo)]
    old, new = (f"sglang@main^{{/sglang 0.5.{number}}}" for number in (11, 12))

    ends = ["--good", old, "--bad", "sglang@behind-0.5.11"]
    assert run(["bisect", str(recording), *ends, *clones]) == SAME
    _, command = capsys.readouterr().out.strip().split("To look for changes in between: specdiff ")
    assert run(shlex.split(command)) == SAME

    sides = ["--old", old, "--fixed", new, "--quantity", "spec_verify_ct"]
    assert run(["shrink", str(recording), "-o", str(small), *sides, *clones]) == SAME
    _, command = capsys.readouterr().out.strip().split("To make a test of it: specdiff ")
    monkeypatch.chdir(tmp_path)
    assert run(shlex.split(command)) == SAME
    assert (tmp_path / "test_a part.py").is_file()
