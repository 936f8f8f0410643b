"""The pytest plugin: which items it makes, and what passes, fails, is skipped or is an error."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clones import clone
from lifting import write_tree
from specdiff.cli import report_replay
from specdiff.cli.inputs import bundled

pytest_plugins = ["pytester"]
PLUGIN = "specdiff.cli.pytest_plugin"
NAMES = ("0.5.11-stale-retract", "0.5.12-stale-retract")


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with two recordings and a test of its own. It loads our plugin, installed or not, and no other."""
    # Imported before the inner run: pytester unloads what that run imports, and rich cannot be imported twice.
    assert report_replay
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    folder = pytester.mkdir("runs")
    for name in NAMES:
        shutil.copy(bundled() / f"{name}.h5", folder)
    pytester.makepyfile("def test_mine(): pass")
    return pytester


def play(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest_inprocess("-p", PLUGIN, "-rsxf", *arguments)


def test_each_recording_and_path_is_a_test(project: pytest.Pytester) -> None:
    paths = ["--specdiff-path", "sglang==0.5.11", "--specdiff-path", "sglang==0.5.12"]
    result = play(project, "--specdiff-recordings", "runs", *paths, "-v")
    result.assert_outcomes(passed=3, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*0.5.11-stale-retract.h5::sglang==0.5.11 PASSED*",
            "*0.5.11-stale-retract.h5::sglang==0.5.12 FAILED*",
            "*0.5.12-stale-retract.h5::sglang==0.5.11 FAILED*",
            "*0.5.12-stale-retract.h5::sglang==0.5.12 PASSED*",
        ]
    )


def test_a_failure_names_the_first_divergence_of_each_quantity_and_a_command(
    project: pytest.Pytester,
) -> None:
    """It agrees with the JSON of the `replay` command that it names."""
    result = play(project, "--specdiff-recordings", "runs/0.5.11-stale-retract.h5", "-v")
    result.assert_outcomes(passed=1, failed=1)
    said = result.stdout.str()
    assert "Traceback" not in said and "exercised" not in said
    line = next(line for line in said.splitlines() if line.startswith("Full report: "))
    done = subprocess.run(
        [sys.executable, "-m", "specdiff.cli", *shlex.split(line)[3:], "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    (found,) = json.loads(done.stdout)
    differ = {name: one for name, one in found["quantities"].items() if one["differed"]}
    block = said[: said.index(line)].rpartition("differs: ")[2].splitlines()
    assert len(differ) == 5 and len(block) == 1 + 2 * len(differ)
    earliest = min(differ.values(), key=lambda one: one["first"]["event"])["first"]
    assert f"step {earliest['step']}, " in block[0]
    for at, (name, one) in enumerate(differ.items()):
        first, shown = one["first"], block[1 + 2 * at]
        assert shown.startswith(
            f"  {name}: {one['differed']} of {one['compared']} differ, first at step"
        )
        assert (
            f"(event {first['event']})" in shown and f"{first['old']} -> {first['fixed']}" in shown
        )
        assert block[2 + 2 * at].strip() == first["cause"]


def test_a_quantity_given_twice_is_passed_on_once(project: pytest.Pytester) -> None:
    asked = ["--specdiff-recordings", "runs/0.5.11-stale-retract.h5"]
    result = play(project, *asked, *["--specdiff-quantity", "kv_committed_len_settled"] * 2)
    result.assert_outcomes(passed=1, failed=1)
    # pytest repeats a failure at the end, and in CI prints it in full there
    (line,) = {one for one in result.stdout.lines if one.startswith("Full report: ")}
    assert line.count("--quantity") == 1


def test_journals_beside_the_recordings_are_named_and_fail_nothing(
    project: pytest.Pytester,
) -> None:
    """A crash leaves them. Without a word, whoever reads "passed" takes the rest for all."""
    later = project.mkdir("runs/a later one")
    for path in (later / "r-1-0.journal", project.path / "runs" / "r-2-0.journal"):
        path.write_bytes(b"x" * 20)
    (project.path / "runs" / "r-2-1.journal").mkdir()  # a ring
    (project.path / "runs" / "r-2-1.journal" / "0.segment").touch()
    says = [
        "*= specdiff =*",
        "runs: left out here: 2 journals, of which *, run `specdiff recover runs`.",
        "runs/a later one: left out here: 1 journal, *, run `specdiff recover 'runs/a later one'`.",
    ]
    # The plugin was imported before the inner run, of which pytest itself warns.
    strict = ["-W", "error", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    passing = ["--specdiff-path", "observed", "-q", *strict]
    for asked in (["--specdiff-recordings", "runs"], [".", "--specdiff-recordings", "runs"]):
        result = play(project, *asked, *passing)
        assert result.ret is pytest.ExitCode.OK
        result.stdout.fnmatch_lines(says, consecutive=True)
    # Nothing was left out of a single recording, nor of other tests.
    project.makeini("[pytest]\nspecdiff_recordings = runs\n")
    for one in (
        f"runs/{NAMES[1]}.h5",
        "test_journals_beside_the_recordings_are_named_and_fail_nothing.py",
    ):
        play(project, one, *passing).stdout.no_fnmatch_line("*left out here*")
    play(project, "runs", *passing).stdout.fnmatch_lines(says, consecutive=True)


def test_without_options_the_plugin_does_nothing_and_imports_nothing_heavy(
    project: pytest.Pytester,
) -> None:
    play(project).assert_outcomes(passed=1)
    script = (
        "import sys, pytest; "
        f"code = pytest.main(['-p', {PLUGIN!r}, '-q']); "
        "print(code, {'torch', 'h5py', 'numpy', 'click'} & sys.modules.keys(), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr == "0 set()\n"


def test_a_path_that_cannot_run_is_skipped_and_a_broken_recording_is_an_error(
    project: pytest.Pytester,
) -> None:
    broken = project.path / "runs" / "0.5.12-stale-retract.h5"
    broken.write_bytes(broken.read_bytes()[:-100])
    old = write_tree(project.path / "old", {"srt/managers/schedule_batch.py": "x = 1\n"})
    result = play(
        project,
        *("--specdiff-recordings", "runs", "--specdiff-quantity", "indexer_topk"),
        *("--specdiff-path", "fixed", "--specdiff-path", str(old)),
    )
    result.assert_outcomes(passed=1, skipped=2, errors=2)
    result.stdout.fnmatch_lines_random(
        [
            "*SKIPPED*0.5.11-stale-retract.h5, fixed: nothing was compared: this recording does not hold*",
            "*SKIPPED*0.5.11-stale-retract.h5, */old: cannot run: *",
            "*0.5.12-stale-retract.h5: HDF5 cannot read it*",
        ]
    )
    assert "def load" not in result.stdout.str()


KNOWN = """
[[tool.specdiff.known]]
recording = "{recording}"
quantity = "kv_committed_len_settled"
path = "fixed"
reason = "stale results count, #23456"
"""


def test_a_failure_says_if_committed_lengths_differ_only_by_claims(
    project: pytest.Pytester,
) -> None:
    """They do for every server from 0.5.15 on, which claims no slots."""
    shutil.copy(bundled() / "0.5.23-new-weights.h5", "x.h5")
    paths = ["--specdiff-path", "expected", "--specdiff-path", "fixed"]
    result = play(project, "--specdiff-recordings", "x.h5", *paths)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        ["kv_committed_len differs only by slots claimed *", "Full report: *"], consecutive=True
    )


def test_a_known_mismatch_is_an_xfail_and_a_stale_entry_fails(project: pytest.Pytester) -> None:
    asked = ["--specdiff-recordings", "runs", "--specdiff-quantity", "kv_committed_len_settled"]
    config = project.path / "pyproject.toml"
    config.write_text(KNOWN.format(recording="0.5.11-*.h5"))
    result = play(project, *asked)
    result.assert_outcomes(passed=2, xfailed=1)
    result.stdout.fnmatch_lines(["*XFAIL*stale results count, #23456*"])
    play(project, *asked, "--runxfail").assert_outcomes(passed=2, failed=1)
    config.write_text(KNOWN.format(recording="runs/*.h5"))
    result = play(project, *asked)
    result.assert_outcomes(passed=1, xfailed=1, failed=1)
    result.stdout.fnmatch_lines(["*pyproject.toml: [[]tool.specdiff] known[[]0]*is stale*"])


def test_the_ini_file_can_name_recordings_and_paths(project: pytest.Pytester) -> None:
    project.makeini(
        "[pytest]\nspecdiff_recordings = runs\nspecdiff_old = fixed\nspecdiff_path =\n  fixed\n  old\n"
    )
    play(project).assert_outcomes(passed=3, failed=2)
    play(project, "test_the_ini_file_can_name_recordings_and_paths.py").assert_outcomes(passed=1)
    one = "runs/0.5.12-stale-retract.h5::fixed"
    play(project, one).assert_outcomes(passed=1)
    play(project, "--specdiff-path", "fixed").assert_outcomes(passed=3)


def test_recordings_behind_a_link_are_found_and_matched_by_both_names(
    project: pytest.Pytester,
) -> None:
    """A recording is found by its name in the project and by the name of the file that it links to."""
    (project.path / "runs").rename(project.path.parent / "store")
    (project.path / "runs").symlink_to(Path("..", "store"))
    named = project.path / "runs" / "named.h5"
    named.symlink_to(f"{NAMES[0]}.h5")
    asked = ["--specdiff-quantity", "kv_committed_len_settled"]
    config = project.path / "pyproject.toml"
    ini = '[tool.pytest.ini_options]\nspecdiff_recordings = ["runs"]\n'
    config.write_text(ini)
    for one in (f"runs/{NAMES[1]}.h5::expected", f"../store/{NAMES[1]}.h5"):
        play(project, one, *asked, "-c", "pyproject.toml").assert_outcomes(passed=1)
    play(project, *asked).assert_outcomes(passed=2, failed=2)  # each recording once
    play(project, ".", "--specdiff-recordings", "runs", *asked).assert_outcomes(passed=2, failed=2)
    for glob in ("runs/named.h5", f"store/{NAMES[0]}.h5"):
        config.write_text(ini + KNOWN.format(recording=glob))
        play(project, "runs/named.h5", *asked).assert_outcomes(xfailed=1)


def test_paths_in_the_ini_file_are_relative_to_its_folder(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = clone(project.mkdir("clone"), ["0.5.12"])
    shutil.copytree(repo / "python", project.path / "tree")
    paths = ("sglang@HEAD", "./tree", "tree")
    lines = ["[pytest]", f"specdiff_recordings = runs/{NAMES[1]}.h5", "specdiff_repo = clone"]
    lines += ["specdiff_path =", *(f"  {path}" for path in paths)]
    project.makeini("\n".join(lines))
    play(project).assert_outcomes(passed=4)
    monkeypatch.chdir(project.mkdir("tests"))
    result = play(project, "-v")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines([f"*.h5::{path} PASSED*" for path in paths])
    # Paths on the command line are relative to the current folder.
    play(project, "--specdiff-repo", "../clone").assert_outcomes(passed=3)
    play(project, "--specdiff-path", "../tree").assert_outcomes(passed=1)
    play(project, "--specdiff-path", "./tree").assert_outcomes(errors=1)
    # So are those of the command that a failure names.
    line = next(
        line
        for line in play(project, "--specdiff-old", "old").stdout.lines
        if line.startswith("Full report: ") and "/tree" in line
    )
    words = shlex.split(line)
    assert Path(words[words.index("--fixed") + 1]).samefile("../tree")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--specdiff-recordings", "nowhere"], "nowhere: no recording (*.h5) found"),
        (
            ["--specdiff-recordings", "left"],
            "left: no recording (*.h5) found. It contains journals: run `specdiff recover ",
        ),
        (
            ["--specdiff-recordings", "left/r-1-0.journal"],
            "r-1-0.journal: a journal, not yet a recording",
        ),
        (["--specdiff-recordings", "runs", "--specdiff-old", "fxied"], "Did you mean 'fixed'?"),
        (["--specdiff-recordings", "runs", "--specdiff-quantity", "x"], "no such quantity: 'x'"),
        (
            ["--specdiff-recordings", "runs", "--specdiff-repo", "."],
            "--specdiff-repo .: only a path sglang@REV",
        ),
    ],
)
def test_a_wrong_option_is_a_usage_error(
    project: pytest.Pytester, arguments: list[str], says: str
) -> None:
    (project.mkdir("left") / "r-1-0.journal").write_bytes(b"x" * 20)
    result = play(project, *arguments)
    assert result.ret is pytest.ExitCode.USAGE_ERROR
    assert says in result.stderr.str()


def test_the_plugin_works_under_xdist(project: pytest.Pytester) -> None:
    if importlib.util.find_spec("xdist") is None:
        pytest.skip("pytest-xdist is not installed")
    config = project.path / "pyproject.toml"
    config.write_text(KNOWN.format(recording="0.5.11-*.h5"))
    asked = ["--specdiff-recordings", "runs", "--specdiff-quantity", "kv_committed_len_settled"]
    command = [sys.executable, "-m", "pytest", "-p", "xdist", "-p", PLUGIN, "-n", "2", *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert "2 passed, 1 xfailed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_is_an_entry_point_of_the_package() -> None:
    project = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    assert f'[project.entry-points.pytest11]\nspecdiff = "{PLUGIN}"\n' in project
    assert importlib.util.find_spec(PLUGIN)
