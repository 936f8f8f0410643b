"""The books as a table: one row per cell and part, the same rows in both formats."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from specdiff.cli.inputs import bundled
from specdiff.cli.main import DIFFERS, SAME, USAGE, run
from specdiff.recorders import hdf5
from specdiff.replay import spec
from specdiff.replay.columns.shared import Columns
from specdiff.replay.explain import Toggles
from specdiff.replay.quantity import PARTS, Quantity
from specdiff.replay.verdict import ledger_of

RECORDING = bundled() / "0.5.12-experts-overshoot.h5"
PATHS = ("observed", "fixed", "sglang==0.5.12")


def exported(tmp_path: Path, form: str, *more: str) -> Path:
    target = tmp_path / f"x.{form}"
    named = [argument for path in PATHS for argument in ("--path", path)]
    arguments = ["export", str(RECORDING), "--format", form, "-o", str(target), *named, *more]
    assert run(arguments) == SAME
    assert sorted(tmp_path.iterdir()) == [target]
    return target


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_table_has_a_row_with_the_ledgers_values_for_each_cell_and_part(tmp_path: Path) -> None:
    rows = rows_of(exported(tmp_path, "jsonl"))
    recording = hdf5.load(RECORDING)
    columns = Columns(recording)
    for path in PATHS:
        ledger = ledger_of(columns, Toggles(columns), spec.parse(path))
        for series in ledger.series:
            mine = [row for row in rows if row["quantity"] == series.quantity.value]
            said = torch.tensor([row[f"{path} captured"] for row in mine], dtype=torch.bool)
            assert said.equal(series.captured.repeat_interleave(series.values.shape[1]))
            values = series.values.flatten()[said].tolist()
            assert [row[path] for row, known in zip(mine, said, strict=True) if known] == [
                None if value == -(2**63) else value for value in values
            ]
            assert [row[path] for row, known in zip(mine, said, strict=True) if not known] == [
                None
            ] * int((~said).sum())
            parts = PARTS.get(series.quantity, (None,))
            assert [row["part"] for row in mine] == [*parts] * len(series.cells)
            rids = [row["rid"] for row in mine[:: len(parts)]]
            qids = series.cells.qid.tolist()
            assert rids == [recording.rids[qid] if qid >= 0 else None for qid in qids]


def test_a_captured_none_and_a_value_not_captured_are_distinct(tmp_path: Path) -> None:
    rows = rows_of(exported(tmp_path, "jsonl", "--quantity", "seq_lens_sum"))
    assert {row["quantity"] for row in rows} == {"seq_lens_sum"}
    said = {(row["fixed"] is None, row["fixed captured"]) for row in rows}
    assert said == {(True, True), (False, True)}
    finish = rows_of(exported(tmp_path, "jsonl", "--quantity", Quantity.FINISH.value, "--force"))
    assert {(row["fixed"], row["fixed captured"]) for row in finish} == {(None, False)}
    assert {row["kind"] for row in finish} == {"result"} and finish[0]["moment"] == "after"


def test_a_quantity_that_is_named_twice_is_written_once(tmp_path: Path) -> None:
    once = rows_of(exported(tmp_path, "jsonl", "--quantity", "seq_lens_sum"))
    twice = exported(tmp_path, "jsonl", *["--quantity", "seq_lens_sum"] * 2, "--force")
    assert rows_of(twice) == once


def test_as_many_rows_differ_as_replay_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rows_of(exported(tmp_path, "jsonl", "--quantity", "routed_experts"))
    different = {
        row["event"] for row in rows if row["fixed captured"] and row["observed"] != row["fixed"]
    }
    capsys.readouterr()
    arguments = ["--old", "observed", "--quantity", "routed_experts", "--format", "json"]
    assert run(["replay", str(RECORDING), *arguments]) == DIFFERS
    (result,) = json.loads(capsys.readouterr().out)
    counted = result["quantities"]["routed_experts"]
    assert len(different) == counted["differed"] > 0
    assert min(different) == counted["first"]["event"]


def test_parquet_has_the_same_rows(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(exported(tmp_path, "parquet"))
    (tmp_path / "x.parquet").unlink()
    assert table.to_pylist() == rows_of(exported(tmp_path, "jsonl"))
    assert str(table.schema.field("sglang==0.5.12").type) == "int64"


def test_without_pyarrow_the_error_says_what_to_install(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['pyarrow'] = None; import importlib.util as u; real = u.find_spec; "
        "u.find_spec = lambda name, *a: None if name == 'pyarrow' else real(name, *a); "
        "from specdiff.cli.main import run; "
        f"sys.exit(run(['export', {str(RECORDING)!r}, '--format', 'parquet', '-o', 'x']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == USAGE and "specdiff[parquet]" in done.stderr
    assert list(tmp_path.iterdir()) == []
