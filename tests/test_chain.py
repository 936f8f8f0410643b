"""From a random mix to a regression test: replay, bisect, shrink, export, run the test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recorded import RigRecorder
from specdiff.cli.main import DIFFERS, SAME, run
from test_export_pytest import played

pytestmark = pytest.mark.live

# 23456 and 24851 came with the same release. The quantity tells them apart.
FIXES = [
    (22651, "kv_committed_len_settled", "0.5.10", "0.5.11"),
    (23456, "spec_verify_ct", "0.5.10", "0.5.12"),
    (24851, "routed_experts", "0.5.10", "0.5.12"),
    (26126, "routed_experts", "0.5.12", "0.5.13"),
]


@pytest.mark.parametrize(("fix", "quantity", "good", "release"), FIXES)
def test_a_random_mix_leads_to_a_regression_test(
    fix: int,
    quantity: str,
    good: str,
    release: str,
    record: RigRecorder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mix = str(record.path("0.5.10", "random", 4))

    def said(*arguments: str, code: int) -> str:
        assert run(list(arguments)) == code, capsys.readouterr().err
        return capsys.readouterr().out

    wanted = ("--quantity", quantity)
    (replayed,) = json.loads(said("replay", mix, *wanted, "--format", "json", code=DIFFERS))
    assert str(fix) in replayed["quantities"][quantity]["by_fix"]

    ends = ("--good", f"sglang=={good}", "--bad", "sglang==0.5.13")
    found: dict[str, Any] = json.loads(
        said("bisect", mix, *ends, *wanted, "--format", "json", code=DIFFERS)
    )
    assert found["first_changed"] == f"sglang=={release}"
    assert [fix] in found["first"]["fixes"]

    sides = ("--old", found["last_before"], "--fixed", found["first_changed"])
    small, test = tmp_path / "small.h5", tmp_path / f"test_{fix}.py"
    said("shrink", mix, "-o", str(small), *sides, *wanted, code=SAME)
    (shrunk,) = json.loads(
        said("replay", str(small), *sides, *wanted, "--format", "json", code=DIFFERS)
    )
    assert shrunk["recording"]["requests"] == 1 and small.stat().st_size < 12_000
    assert [fix] in shrunk["quantities"][quantity]["first"]["fixes"]

    said("export", str(small), "--format", "pytest", "-o", str(test), *sides, *wanted, code=SAME)
    before, after = played(test, found["last_before"]), played(test, found["first_changed"])
    assert before.returncode == 1 and "failed" in before.stdout, before.stdout + before.stderr
    assert after.returncode == 0 and "passed" in after.stdout, after.stdout + after.stderr
