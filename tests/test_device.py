"""The recorder never reads what a GPU server keeps on its device.

A hook that waited for it would stall every step.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from children import VERSIONS, on_demand, specdiff
from recorded import RigRecorder
from specdiff.recorders import hdf5
from specdiff.recorders.recording import TABLE_NAMES, columns
from specdiff.recorders.schema import NONE64

CASES = [("0.5.23", "sessions-random")]
CASES += on_demand(*((version, "random") for version in VERSIONS), ("0.5.23", "chunked-random"))
FEW = ("--requests", "40")


@pytest.mark.parametrize(("version", "scenario"), CASES)
def test_no_hook_reads_tensors_on_the_device(
    version: str, scenario: str, tmp_path: Path, record: RigRecorder
) -> None:
    """Everything else is recorded as usual, and replays."""
    child = [
        sys.executable,
        str(Path(__file__).with_name("device_child.py")),
        str(tmp_path / "said"),
    ]
    command = [*child, "--sglang", version, "--scenario", scenario, "--seed", "3", *FEW]
    done = specdiff("record", "-o", tmp_path / "r", "--", *command)
    assert done.returncode == 0, done.stderr
    *seen, asked = (tmp_path / "said").read_text().splitlines()
    assert not seen and int(asked) > 100

    (path,) = map(Path, done.stdout.split())
    found, other = hdf5.load(path), record(version, scenario, 3, *FEW)
    for name in TABLE_NAMES:
        both = zip(columns(getattr(found, name)), columns(getattr(other, name)), strict=True)
        for (column, here), (_, there) in both:
            if column == "device_sum":
                # 0 for an empty batch, which needs no device.
                assert set(here.tolist()) <= {NONE64, 0}
            elif column != "time_ns":
                assert np.array_equal(here, there), f"{name}.{column}"
    same = specdiff("replay", path, "--old", "observed", "--fixed", f"sglang=={version}")
    assert same.returncode == 0, same.stdout
