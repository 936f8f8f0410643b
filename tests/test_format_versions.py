"""Recordings of older format versions, frozen as they were written: they stay readable."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import numpy as np

from lifting import bundled_recording
from specdiff.cli.main import NO_VERDICT, SAME, run
from specdiff.recorders import hdf5, schema
from specdiff.recorders.recording import TABLE_NAMES, columns

FROZEN = Path(__file__).parent.parent / "fixtures" / "frozen" / "v1-0.5.10-random.h5"


def test_version_1_stays_readable() -> None:
    """A file as the first format wrote it: what it does not hold is absent, what it holds is replayed as ever."""
    with h5py.File(FROZEN) as file:
        assert file.attrs["version"] == 1 and "saves" not in file
    old, new = hdf5.load(FROZEN), bundled_recording("0.5.10-random")
    for name in TABLE_NAMES:
        for (column, one), (_, other) in zip(
            columns(getattr(old, name)), columns(getattr(new, name)), strict=True
        ):
            later = {one for tables in schema.ADDED.values() for one in tables.get(name, ())}
            added = column in later and name not in ("saves", "restores")
            absent = {schema.NONE32, schema.NONE64}
            assert not added or set(one.tolist()) <= absent, (name, column)
            if not added and column != "time_ns":  # the same run of the same release
                assert np.array_equal(one, other), (name, column)
    assert run(["replay", str(FROZEN), "--old", "observed", "--fixed", "old"]) == SAME
    assert run(["replay", str(FROZEN), "--quantity", "released_len"]) == NO_VERDICT


def test_what_a_version_added_is_there_now() -> None:
    for tables in schema.ADDED.values():
        for name, added in tables.items():
            assert set(added) <= {field.name for field in dataclasses.fields(TABLE_NAMES[name])}
