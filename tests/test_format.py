"""The recording format: it returns what was saved, and damage is an error."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from specdiff.cli.inputs import bundled
from specdiff.recorders import hdf5, schema
from specdiff.recorders.errors import RecordingError
from specdiff.recorders.recording import TABLE_NAMES, Recording, columns
from specdiff.recorders.run import run_from_json, to_json
from strategies import recordings

some = settings(max_examples=60, suppress_health_check=list(HealthCheck))


def equal(left: Recording, right: Recording) -> bool:
    same = [
        getattr(left, name) == getattr(right, name)
        for name in ("run", "stats", "damage", "rids", "details", "version")
    ]
    for name in TABLE_NAMES:
        pairs = zip(columns(getattr(left, name)), columns(getattr(right, name)), strict=True)
        same += [a.dtype == b.dtype and np.array_equal(a, b) for (_, a), (_, b) in pairs]
    for name in ("tokens", "experts", "indexer"):
        a, b = getattr(left, name), getattr(right, name)
        same.append(a.dtype == b.dtype and np.array_equal(a, b))
    return all(same)


@some
@given(recordings())
def test_loading_returns_what_was_saved(
    tmp_path_factory: pytest.TempPathFactory, recording: Recording
) -> None:
    path = tmp_path_factory.mktemp("x") / "x.h5"
    hdf5.save(recording, path)
    assert equal(hdf5.load(path), recording)
    assert [item.name for item in path.parent.iterdir()] == ["x.h5"], "a temporary file is left"


def test_a_recording_with_200_000_requests_can_be_loaded(
    real_recording: Path, tmp_path: Path
) -> None:
    """The manifest describes each request, so its size grows with them."""
    real, path, size = hdf5.load(real_recording), tmp_path / "x.h5", 200_000
    recording = dataclasses.replace(
        real,
        rids=tuple(f"{qid:032x}" for qid in range(size)),
        details=(real.details * size)[:size],
        requests=schema.Requests(
            *(np.resize(values, size) for _, values in columns(real.requests))
        ),
    )
    hdf5.save(recording, path)
    with h5py.File(path) as file:
        assert file["manifest"].size > 64 << 20  # an earlier limit on reading it
    assert equal(hdf5.load(path), recording)


def test_a_flipped_byte_is_an_error_or_changes_nothing(
    real_recording: Path, tmp_path: Path
) -> None:
    whole = hdf5.load(real_recording)
    data = real_recording.read_bytes()
    path, chance, refused = tmp_path / "x.h5", random.Random(7), 0
    for _ in range(300):
        damaged = bytearray(data)
        damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            assert equal(hdf5.load(path), whole), "a damaged file was read as something else"
        except RecordingError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > 200, "most bytes of a recording should matter"


def test_a_cut_file_is_an_error(real_recording: Path, tmp_path: Path) -> None:
    data, chance = real_recording.read_bytes(), random.Random(8)
    path = tmp_path / "x.h5"
    for size in [0, 1, 8, len(data) - 1, *(chance.randrange(len(data)) for _ in range(60))]:
        path.write_bytes(data[:size])
        with pytest.raises(RecordingError, match=r"x\.h5"):
            hdf5.load(path)


def test_save_overwrites_only_with_force(real_recording: Path, tmp_path: Path) -> None:
    recording, path = hdf5.load(real_recording), tmp_path / "x.h5"
    path.write_text("precious")
    with pytest.raises(RecordingError, match="--force"):
        hdf5.save(recording, path)
    assert path.read_text() == "precious"
    hdf5.save(recording, path, force=True)
    assert equal(hdf5.load(path), recording)


def _missing(path: Path) -> None:
    path.unlink()


def _text(path: Path) -> None:
    path.write_text("hello, this is no HDF5")


def _other_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["weights"] = [1, 2, 3]


def _newer(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.attrs["version"] = 99


def _unfinished(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file.attrs["complete"]


def _table_gone(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["result_rows"]


def _table_added(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["surprise"] = [1]


def _value_changed(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["result_rows"][5, 0] += 1


def _claims_the_moon(name: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with h5py.File(path, "a") as file:
            dtype = file[name].dtype
            del file[name]
            file.create_dataset(
                name, shape=(1 << 40,), dtype=dtype, chunks=(65536,), compression="gzip"
            )

    return damage


def _claims_to_be_elsewhere(path: Path) -> None:
    """HDF5 counts an external file's declared size as stored bytes, whatever the file has."""
    with h5py.File(path, "a") as file:
        del file["manifest"]
        file.create_dataset(
            "manifest", shape=(1 << 40,), dtype="u1", external=[("/dev/zero", 0, 1 << 40)]
        )


@pytest.mark.parametrize("rows", [5, 100])
def test_wide_rows_are_stored_in_chunks_of_bounded_size(rows: int) -> None:
    """An indexer's row may have 61 layers of 2,048. HDF5 refuses chunks of 4 GiB."""
    array = np.zeros((rows, 61, 2048), dtype="<u4")
    array[:, 0, 0] = range(rows)
    with h5py.File("x", "w", driver="core", backing_store=False) as file:
        hdf5._create(file, "indexer", array)
        chunk = file["indexer"].chunks
        assert chunk[0] == min(rows, 67) and chunk[1:] == array.shape[1:]
        assert np.array_equal(file["indexer"][()], array)


def test_tables_without_rows_are_not_stored(tmp_path: Path) -> None:
    """Files of version 2 had a dataset for each empty table."""
    frozen = bundled().parent / "frozen" / "v2-0.5.10-random.h5"
    recording, path = hdf5.load(frozen), tmp_path / "x.h5"
    hdf5.save(recording, path)
    with h5py.File(path) as file, h5py.File(frozen) as old:
        empty = {name for name in old if 0 in old[name].shape}
        assert empty and set(file) == set(old) - empty
    assert path.stat().st_size < 0.8 * frozen.stat().st_size
    again = hdf5.load(path)
    assert again.experts.shape == recording.experts.shape
    assert len(again.saves.qid) == 0 and again.tokens.tolist() == recording.tokens.tolist()


_EMPTY: dict[str, object] = {
    "run": {},
    "tables": {},
    "rids": [],
    "details": [],
    "stats": None,
    "damage": None,
}


def _group_for(name: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with h5py.File(path, "a") as file:
            del file[name]
            file.create_group(name)

    return damage


def _manifest(manifest: object) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        text = json.dumps(manifest).encode()
        with h5py.File(path, "a") as file:
            del file["manifest"]
            file["manifest"] = np.frombuffer(text, dtype=np.uint8)
            file.attrs["manifest_sha256"] = hashlib.sha256(text).hexdigest()

    return damage


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_missing, "no such file"),
        (_text, "not an HDF5 file"),
        (_other_hdf5, r"not a specdiff recording.*contains weights"),
        (_newer, r"format version 99; this specdiff reads 1 to 5\. Install a newer specdiff"),
        (_unfinished, "unfinished.*specdiff recover"),
        (_table_gone, "result_rows"),
        (_table_added, "surprise"),
        (_value_changed, "result_rows does not match its digest"),
        (_claims_the_moon("tokens"), "/tokens"),
        (_claims_the_moon("manifest"), r"/manifest claims shape \(1099511627776,\)"),
        (_claims_to_be_elsewhere, r"/manifest claims shape \(1099511627776,\)"),
        (_group_for("manifest"), "/manifest is a Group, expected a dataset.*Copy"),
        (_group_for("tokens"), "/tokens is a Group, expected a dataset.*Copy"),
        (_manifest([]), "/manifest was not written by specdiff.*Copy"),
        (_manifest({"run": {}}), "/manifest was not written by specdiff: expected tables: dict"),
        (
            _manifest({"run": {}, "tables": {"tokens": 1}, "rids": [], "details": []}),
            "/manifest was not written by specdiff: expected stats and damage",
        ),
        (
            _manifest({**_EMPTY, "tables": {"tokens": 1}}),
            "expected dtype, shape and sha256 of /tokens",
        ),
        (_manifest({**_EMPTY, "rids": [1]}), "expected texts in rids"),
    ],
)
def test_bad_files_are_refused_with_the_reason(
    damage: object, says: str, real_recording: Path, tmp_path: Path
) -> None:
    path = tmp_path / "x.h5"
    shutil.copy(real_recording, path)
    damage(path)  # type: ignore[operator]
    with pytest.raises(RecordingError, match=says) as caught:
        hdf5.load(path)
    assert str(path) in str(caught.value)


STEP = {
    "how": "shrink",
    "source": "0" * 64,
    "description": "1 of 80 requests",
    "requests_left_out": 79,
    "tokens_replaced": True,
}


@pytest.mark.parametrize(
    "derived",
    [
        "shrink",
        ["shrink"],
        [{**STEP, "tokens_replaced": 1}],
        [{**STEP, "requests_left_out": "79"}],
        [{**STEP, "says": "x"}],
        [STEP, {name: value for name, value in STEP.items() if name != "tokens_replaced"}],
    ],
)
def test_steps_of_another_form_are_refused(
    derived: object, real_recording: Path, tmp_path: Path
) -> None:
    path = tmp_path / "x.h5"
    shutil.copy(real_recording, path)
    with h5py.File(path) as file:
        manifest = json.loads(file["manifest"][()].tobytes())
    _manifest({**manifest, "derived": [STEP]})(path)
    assert hdf5.load(path).tokens_replaced == "replaced by shrink"
    _manifest({**manifest, "derived": derived})(path)
    says = r"/manifest derived: found .*shrink.*, expected a list of objects with how \(str\), .*make it again"
    with pytest.raises(RecordingError, match=says):
        hdf5.load(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"weight_versions": 3}, "weight_versions is not a list of texts"),
        ({"weight_versions": [None]}, "weight_versions is not a list of texts"),
        ({"command": "python"}, "command is not a list of texts"),
        ({"overlapped": True}, "unknown fields: overlapped"),
    ],
)
def test_malformed_run_attributes_are_refused_by_name(change: dict[str, object], says: str) -> None:
    raw = json.loads(to_json(hdf5.load(bundled() / "0.5.23-random.h5").run))
    with pytest.raises(RecordingError, match=says):
        run_from_json(json.dumps({**raw, **change}))
