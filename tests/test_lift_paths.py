"""Lifted paths on the command line: listing, explaining and comparing them, and refusing malformed ones."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from lifting import bundled_recording
from specdiff.cli.inputs import bundled
from specdiff.cli.main import BROKEN, DIFFERS, NO_VERDICT, SAME, USAGE, run
from specdiff.cli.report_paths import print_paths
from specdiff.recorders import hdf5
from specdiff.recorders.errors import NoVerdictError
from specdiff.replay import spec
from specdiff.replay.lift.catalog import CachedRelease
from specdiff.replay.lift.missing import CannotRunError
from test_fidelity import ERAS

RECORDING = str(bundled() / "0.5.23-random.h5")


def test_the_five_fixes_explain_all_differences_in_the_quantities_that_their_rules_compute(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(
        [
            "replay",
            RECORDING,
            "--old",
            "sglang==0.5.10",
            "--fixed",
            "sglang==0.5.23",
            "--format",
            "json",
        ]
    )
    found = json.loads(capsys.readouterr().out)[0]["quantities"]
    assert not any(quantity["unexplained"] for quantity in found.values())
    without = {name for name, one in found.items() if one["first"] and not one["first"]["fixes"]}
    assert without == {"finish", "released_len", "spec_histogram"}


def test_paths_lists_the_fixes_of_releases_and_explains_a_release(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["paths", "--explain", "sglang==0.5.12"]) == SAME
    said = capsys.readouterr().out
    assert "SchedulerOutputProcessorMixin._resolve_spec_overlap_tokens" in said
    assert "req.is_retracted" in said and "not in this sglang" in said
    assert run(["paths"]) == SAME
    lines = {
        line.split()[0]: line.split()[2]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("sglang==0")
    }
    assert "sglang==0.5.12" in lines  # the cache has at least the one that was just explained
    for version, fixes in ERAS.items():
        assert lines.get(f"sglang=={version}", fixes) == fixes
    assert run(["paths", "--explain", "old"]) == USAGE


def test_paths_says_below_the_table_why_a_release_cannot_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    why = "cannot run: it has no resolve function"
    releases = [
        CachedRelease("0.4.0", None, {}, why),
        CachedRelease("0.5.12", "dc34d2de", {"EAGLE": "old", "DFLASH": "-"}),
    ]
    print_paths(releases, num_recordings=2)
    lines = capsys.readouterr().out.splitlines()
    (row,) = (line for line in lines if line.startswith("sglang==0.4.0  "))
    assert row.split() == ["sglang==0.4.0", "-", "cannot", "run", "-"]
    assert f"sglang==0.4.0 {why}" in lines[lines.index(row) :]


BAD = [
    ("sglang==", USAGE, "not a version"),
    ("sglang==--index-url=http://x", USAGE, "not a version"),
    ("sglang==0.5.x", USAGE, "not a version"),
    ("sglang=0.5.11", USAGE, "sglang==VERSION"),
    ("sglang@", USAGE, "sglang==VERSION"),
    ("sglang@main", USAGE, "--repo"),
    ("./no/such/folder", USAGE, "no sglang source tree"),
]


@pytest.mark.parametrize(("path", "code", "says"), BAD)
def test_a_malformed_path_is_refused_with_the_reason(
    path: str, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["replay", RECORDING, "--old", path]) == code
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("0.5.12.0", "0.5.12"),
        ("0.5.12post1", "0.5.12.post1"),
        ("0.5.12.0.post1", "0.5.12.post1"),
        ("0.6", "0.6.0"),
        ("0.5.10", "0.5.10"),
        ("0.5.12rc1+cu130", "0.5.12rc1+cu130"),
    ],
)
def test_spellings_of_a_version_give_the_same_path(given: str, named: str) -> None:
    assert spec.parse(f"sglang=={given}") == spec.parse(f"sglang=={named}")
    assert str(spec.parse(f"sglang=={given}")) == f"sglang=={named}"


def test_a_release_is_found_under_another_spelling_of_its_version() -> None:
    same = ["--old", "sglang==0.5.12.0", "--fixed", "sglang==0.5.12"]
    assert run(["replay", RECORDING, *same]) == SAME


def test_the_exit_codes_differ() -> None:
    assert len({SAME, DIFFERS, NO_VERDICT, BROKEN, USAGE}) == 5
    assert issubclass(CannotRunError, NoVerdictError)


def test_a_recording_that_cannot_be_replayed_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worst verdict wins: differs before no verdict, no verdict before same."""
    recording = bundled_recording("0.5.23-random")
    foreign = dataclasses.replace(
        recording, run=dataclasses.replace(recording.run, spec_algorithm="UNO")
    )
    hdf5.save(foreign, tmp_path / "foreign.h5")
    both = ["replay", str(tmp_path / "foreign.h5"), RECORDING, "--old", "sglang==0.5.23"]
    assert run([*both, "--fixed", "observed"]) == NO_VERDICT
    said = capsys.readouterr()
    assert "foreign.h5: cannot run: sglang 0.5.23 has no prepare for UNO" in said.err
    assert "0.5.23-random.h5  same" in said.out
    assert run([*both, "--fixed", "old"]) == DIFFERS
    assert run([*both[:2], *both[3:]]) == NO_VERDICT
