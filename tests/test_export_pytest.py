"""An exported test, run as a maintainer would.

It fails on the release before the fix and passes on the release with the fix.
"""

from __future__ import annotations

import ast
import dataclasses
import os
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from children import EVERYTHING
from lifting import bundled_recording, files_of, write_tree
from patched import patched_tree
from specdiff.cli.inputs import bundled
from specdiff.cli.main import BROKEN, NO_VERDICT, SAME, USAGE, run
from specdiff.fixtures.rig.release import find_release
from specdiff.recorders import hdf5
from specdiff.recorders.errors import NoVerdictError
from specdiff.replay import spec
from specdiff.replay.quantity import Quantity
from specdiff.replay.regression import regression
from specdiff.replay.values import values, values_of
from specdiff.replay.verdict import replay

RECORDING = bundled() / "0.5.12-experts-overshoot.h5"
PATHS = ("--old", "old+24851", "--fixed", "fixed", "--quantity", "routed_experts")


def export(recording: Path, test: Path, *arguments: str) -> int:
    return run(["export", str(recording), "--format", "pytest", "-o", str(test), *arguments])


def played(test: Path, sglang: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test.name],
        cwd=test.parent,
        env={**os.environ, "SGLANG": sglang},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_exported_test_fails_before_the_fix_and_passes_with_it(tmp_path: Path) -> None:
    """The release before the fix is given by its number, the one with the fix as a source tree."""
    recording, test = tmp_path / "small.h5", tmp_path / "test_26126.py"
    shutil.copy(RECORDING, recording)
    assert export(recording, test, *PATHS) == SAME
    before = played(test, "sglang==0.5.12")
    assert before.returncode == 1 and "2 failed" in before.stdout, before.stdout + before.stderr
    assert "assert (0, 23) == (0, 20)" in before.stdout
    after = played(test, str(write_tree(tmp_path / "sglang", files_of("0.5.13"))))
    assert after.returncode == 0 and "2 passed" in after.stdout, after.stdout + after.stderr


@pytest.mark.live
def test_the_exported_law_test_fails_on_the_release_and_passes_on_a_fixed_tree(
    tmp_path: Path,
) -> None:
    """Both the release, named by its number, and a source tree play the incident again."""
    incident, test = tmp_path / "incident.h5", tmp_path / "test_weights.py"
    shutil.copy(bundled() / "0.5.23-new-weights.h5", incident)
    assert export(incident, test, "--law", "weights") == SAME
    said = " ".join((ast.get_docstring(ast.parse(test.read_text())) or "").split())
    assert (
        "When sglang==0.5.23 plays incident.h5 again, the law is broken in 23 of 126 places."
        in said
    )
    assert "First breach: step 14, weight span (event 140)" in said
    broken = played(test, "sglang==0.5.23")
    assert broken.returncode == 1 and "23 of 126 places, first: Breach(event=140" in broken.stdout
    patched = played(test, str(patched_tree(tmp_path / "sglang", "0.5.23")))
    assert patched.returncode == 0 and "1 passed" in patched.stdout, patched.stdout + patched.stderr
    nobody = played(test, "observed")
    assert nobody.returncode == 1 and "expected sglang==VERSION" in nobody.stdout


@pytest.mark.live
@pytest.mark.skipif(not EVERYTHING, reason="half a minute: only if all releases are tested")
def test_a_scenario_is_exported_only_with_a_law_that_it_breaks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The release that it names plays it first, so every exported test has failed once."""
    scenario, test = tmp_path / "x.toml", tmp_path / "test_x.py"
    text = (bundled().parent / "scenarios/tokens-of-the-old-weights.toml").read_text()
    scenario.write_text(text.replace('"0.5.23"', '"0.5.22"'))
    assert export(scenario, test, "--law", "weights") == SAME
    made = test.read_text()
    assert 'with_name("x.toml")' in made and 'get("SGLANG", "sglang==0.5.22")' in made
    assert "When sglang==0.5.22 plays x.toml, the law is broken in 1 of 2 places." in made
    test.unlink()
    scenario.write_text(text.replace("weights_at = [6]", ""))
    assert export(scenario, test, "--law", "weights") == NO_VERDICT
    scenario.write_text(text.replace('sglang = "0.5.23"', ""))
    assert export(scenario, test, "--law", "weights") == USAGE
    made_of = str(find_release("0.5.22").root)
    assert export(scenario, test, "--law", "weights", "--path", made_of) == SAME
    assert f"When {made_of} plays x.toml, " in " ".join(test.read_text().split())
    test.unlink()
    said = capsys.readouterr().err
    assert (
        "nothing to test: the law weights is not broken" in said
        and "does not name the sglang" in said
    )
    assert not test.exists()


def test_a_recording_of_a_version_that_cannot_be_played_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = hdf5.load(bundled() / "0.5.23-new-weights.h5")
    run = dataclasses.replace(recording.run, sglang_version="0.6.0.dev1+fork")
    hdf5.save(dataclasses.replace(recording, run=run), tmp_path / "x.h5")
    assert export(tmp_path / "x.h5", tmp_path / "test_x.py", "--law", "weights") == USAGE
    assert "is from sglang 0.6.0.dev1+fork, but the rig plays only" in capsys.readouterr().err
    assert not (tmp_path / "test_x.py").exists()


@pytest.mark.parametrize(
    ("recording", "more", "code", "says"),
    [
        (
            "0.5.23-new-weights",
            ["--law", "rows"],
            NO_VERDICT,
            "the law rows is not broken in this recording (24",
        ),
        (
            "0.5.23-new-weights",
            ["--law", "weights", "--old", "old"],
            USAGE,
            "--old can only be used without --law",
        ),
        ("0.5.15-session-hole", ["--law", "session"], NO_VERDICT, "cannot be played again"),
        ("0.5.23-random", ["--law", "no"], USAGE, "no law 'no'"),
    ],
)
def test_a_law_that_cannot_be_tested_is_refused(
    recording: str,
    more: list[str],
    code: int,
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    test = tmp_path / "test_x.py"
    assert export(bundled() / f"{recording}.h5", test, *more) == code
    assert says in capsys.readouterr().err and not test.exists()


def test_a_linked_recording_is_found_by_the_name_of_the_link(tmp_path: Path) -> None:
    """Both a recording and the folder of the tests may be links."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "links").mkdir()
    (tmp_path / "links").symlink_to("real/links")
    shutil.copy(RECORDING, tmp_path / "kept.h5")
    link = tmp_path / "links" / "small.h5"
    link.symlink_to(tmp_path / "kept.h5")
    for test in (tmp_path / "test_apart.py", tmp_path / "links" / "test_beside.py"):
        assert export(link, test, *PATHS) == SAME
        found = runpy.run_path(str(test))["RECORDING"]
        assert found.samefile(tmp_path / "kept.h5") and found.name == "small.h5"
    assert 'with_name("small.h5")' in (tmp_path / "links" / "test_beside.py").read_text()


def test_a_file_name_that_is_not_valid_text_is_escaped(tmp_path: Path) -> None:
    """Under LC_ALL=C this applies to any name outside ASCII."""
    recording, test = (
        Path(os.fsdecode(bytes(tmp_path) + name)) for name in (b"/\xfc.h5", b"/\xfc.py")
    )
    shutil.copy(RECORDING, recording)
    assert export(recording, test, *PATHS) == SAME
    assert runpy.run_path(str(test))["RECORDING"] == recording


def test_the_exported_file_is_short_and_imports_only_specdiff(tmp_path: Path) -> None:
    test = tmp_path / "test_26126.py"
    assert export(RECORDING, test, *PATHS) == SAME
    text = test.read_text()
    tree = ast.parse(text)
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"pathlib", "specdiff.replay.values"}
    lines = text.splitlines()  # the path to the recording may be long: it depends on the folder
    assert len(lines) < 70 and all(len(line) <= 110 or "__file__" in line for line in lines)
    docstring = ast.get_docstring(tree)
    assert docstring is not None
    for said in ("#26126", "pull/26126", "sglang 0.5.12", "after the stop", "finish (event"):
        assert said in docstring, said
    assert str(tmp_path) not in text and '"0.5.12-experts-overshoot.h5"' not in text
    relative = os.path.relpath(RECORDING, tmp_path)
    assert f'Path(__file__).parent / "{relative}"' in text


def test_no_value_is_expected_where_both_none_and_a_sum_are_right() -> None:
    """A server whose backends need no CPU lengths leaves None at decode launches (#25879)."""
    recording = bundled_recording("0.5.13-merge-filter")
    run = dataclasses.replace(recording.run, needs_cpu_seq_lens=False)
    needs_none = dataclasses.replace(recording, run=run)
    old, new, sums = spec.OLD, spec.FIXED, Quantity.SEQ_LENS_SUM
    whole, found = (regression(one, old, new, sums) for one in (recording, needs_none))
    assert found.key[0] == found.first.event and found.key in found.expected
    assert (found.was, found.expected[found.key]) == (found.first.old, found.first.new)
    computed = values_of(needs_none, old, sums)
    wrong = [key for key, value in found.expected.items() if computed[key] != value]
    assert wrong[0] == found.key and len(wrong) == found.num_wrong > 10
    (made,) = replay(needs_none, old, new, [sums]).quantities
    assert len(whole.expected) - len(found.expected) == made.num_excused > 0


def test_exports_that_cannot_become_a_test_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test, mix = tmp_path / "test_x.py", bundled() / "0.5.10-random.h5"
    assert export(mix, test) == USAGE
    assert "specdiff shrink" in capsys.readouterr().err
    assert export(RECORDING, test.with_suffix(".toml"), *PATHS) == USAGE
    assert export(RECORDING, test, "--old", "fixed") == NO_VERDICT
    assert export(RECORDING, test, *PATHS, "--quantity", "finish") == USAGE
    assert export(tmp_path / "no.h5", test, *PATHS) == BROKEN
    assert not test.exists()
    test.write_text("mine")
    assert export(RECORDING, test, *PATHS) == BROKEN and test.read_text() == "mine"


def test_reading_a_value_that_a_path_does_not_compute_raises() -> None:
    computed = values(RECORDING, "fixed", "routed_experts")
    with pytest.raises(
        NoVerdictError, match="fixed computes no routed_experts before event 7 of x"
    ):
        computed[7, "x", "before"]
    assert not values(
        RECORDING, "fixed", "finish"
    )  # the rules of the five fixes do not compute finishes


def test_the_command_in_the_docstring_is_quoted(tmp_path: Path) -> None:
    test = tmp_path / "test_what's left.py"
    assert export(RECORDING, test, *PATHS) == SAME
    lines = (ast.get_docstring(ast.parse(test.read_text())) or "").splitlines()
    commands = [shlex.split(line) for line in lines if "pytest" in line]
    assert [words[1:3] for words in commands] == [["pytest", test.name]] * 2


def test_nothing_is_exported_if_nothing_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = tmp_path / "test_x.py"
    assert export(RECORDING, test, "--old", "fixed") == NO_VERDICT
    assert "nothing to test: same, " in capsys.readouterr().err and not test.exists()
