"""Recordings of older format versions, frozen as they were written: they stay readable."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from lifting import bundled_recording
from specdiff.cli.main import NO_VERDICT, SAME, run
from specdiff.recorders import hdf5, schema
from specdiff.recorders.recording import TABLE_NAMES, Recording, columns

FROZEN = Path(__file__).parent.parent / "fixtures" / "frozen"


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_version_stays_readable(version: int) -> None:
    """A file as that format wrote it: what it does not hold is absent, what it holds is replayed as ever."""
    path = FROZEN / f"v{version}-0.5.10-random.h5"
    with h5py.File(path) as file:
        assert file.attrs["version"] == version and "sents" not in file
    old, new = hdf5.load(path), bundled_recording("0.5.10-random")
    known = _known(version, new)
    for name, table in TABLE_NAMES.items():
        held = schema.columns_in(version, name, table)
        for (column, one), (_, other) in zip(
            columns(getattr(old, name)), columns(getattr(new, name)), strict=True
        ):
            if column not in held:
                assert set(one.tolist()) <= {schema.NONE32, schema.NONE64}, (name, column)
            elif column != "time_ns":  # the same run of the same release
                same = other[known] if name == "events" else other
                assert np.array_equal(one, same), (name, column)
    assert run(["replay", str(path), "--old", "observed", "--fixed", "old"]) == SAME


def _known(version: int, recording: Recording) -> NDArray[np.bool_]:
    """Per event, whether the version had its kind."""
    known = [
        int(kind)
        for kind, table in schema.EVENT_TABLES.items()
        if schema.columns_in(version, table.__name__.lower(), table)
    ]
    return np.isin(recording.events.kind, known)


def test_what_version_1_lacks_is_not_compared() -> None:
    path = FROZEN / "v1-0.5.10-random.h5"
    assert run(["replay", str(path), "--quantity", "released_len"]) == NO_VERDICT


def test_what_a_version_added_is_there_now() -> None:
    for tables in schema.ADDED.values():
        for name, added in tables.items():
            assert set(added) <= {field.name for field in dataclasses.fields(TABLE_NAMES[name])}
