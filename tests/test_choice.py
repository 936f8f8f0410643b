"""Recording a sample of the requests gives the same as recording all of them and cutting.

It costs the server less.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from children import VERSIONS, on_demand, rig, specdiff
from recorded import RigRecorder
from specdiff.recorders import hdf5
from specdiff.recorders.capture.choice import Choice
from specdiff.recorders.cut import Cutter
from specdiff.recorders.recording import TABLE_NAMES, Recording, columns
from specdiff.recorders.schema import EVENT_TABLES, NONE64, Kind

pytestmark = pytest.mark.live

CASES = [("0.5.23", "sessions-random")]
CASES += on_demand(
    *((version, "random") for version in VERSIONS),
    ("0.5.10", "sessions-random"),
    ("0.5.13", "chunked-random"),
)
ONE_IN = 3


@pytest.mark.parametrize(("version", "scenario"), CASES)
def test_a_sample_equals_a_cut_of_the_whole_recording(
    version: str, scenario: str, tmp_path: Path, record: RigRecorder
) -> None:
    whole = record(version, scenario, 3)
    command = rig(version, scenario, "--seed", "3")
    done = specdiff("record", "--sample", f"1/{ONE_IN}", "-o", tmp_path, "--", *command)
    assert done.returncode == 0, done.stderr
    sample = hdf5.load(Path(done.stdout.strip()))

    chosen = np.array([Choice(one_in=ONE_IN).takes(rid) for rid in whole.rids])
    cut = Cutter(whole, "")(chosen, np.ones(len(whole.events.kind), dtype=bool))
    assert sample.rids == cut.rids and 0 < len(cut.rids) < len(whole.rids)
    assert [step.how for step in sample.derived] == ["sample"]
    assert sample.derived[0].requests_left_out == int((~chosen).sum())
    assert sample.derived[0].description == f"{chosen.sum()} of {len(chosen)} requests kept"
    for name in TABLE_NAMES:
        here, there = getattr(sample, name), getattr(cut, name)
        for (column, one), (_, other) in zip(columns(here), columns(there), strict=True):
            if column not in ("time_ns", "batch", "other", "session"):
                assert np.array_equal(one, other), f"{name}.{column}"
    for these in (("batch", "other"), ("session",)):
        assert in_order(sample, these) == in_order(cut, these)
    for part in ("tokens", "experts", "indexer"):
        assert np.array_equal(getattr(sample, part), getattr(cut, part)), part


def test_a_recording_without_a_request_is_no_success(tmp_path: Path) -> None:
    command = rig("0.5.13", "stale-stop")
    done = specdiff("record", "--only-rid", "nobody", "-o", tmp_path, "--", *command)
    assert done.returncode == 125
    assert "no request came, or none that --only-rid and --sample take" in done.stderr
    assert not hdf5.load(Path(done.stdout.strip())).rids


def in_order(recording: Recording, these: tuple[str, ...]) -> list[int]:
    """Return the numbers of batches or sessions, renumbered in order of appearance."""
    found: dict[int, int] = {}
    told = []
    for kind, ref in zip(
        recording.events.kind.tolist(), recording.events.ref.tolist(), strict=True
    ):
        table = getattr(recording, EVENT_TABLES[Kind(kind)].__name__.lower())
        for column in these:
            number = int(getattr(table, column)[ref]) if hasattr(table, column) else NONE64
            told.append(NONE64 if number == NONE64 else found.setdefault(number, len(found)))
    return told
