"""Recordings in older format versions, kept as they were written, stay readable."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from array import array
from pathlib import Path
from typing import Any

import h5py
import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

from cuts import SOURCE
from lifting import bundled_recording
from specdiff.cli.main import NO_VERDICT, SAME, run
from specdiff.recorders import hdf5, journal, schema
from specdiff.recorders.build import _read, build
from specdiff.recorders.cut import Cutter
from specdiff.recorders.errors import RecordingError
from specdiff.recorders.recording import TABLE_NAMES, Recording, columns
from specdiff.recorders.redact import redacted
from specdiff.recorders.schema import Kind
from specdiff.recorders.wire import _held, unpack_event
from specdiff.replay import held
from specdiff.replay.columns.shared import Columns
from specdiff.replay.exercised import exercised
from specdiff.replay.held import BRANCHES
from specdiff.replay.laws.check import LAWS, outcome_of
from specdiff.replay.observed import observed
from specdiff.replay.reconcile.facts import Fact
from specdiff.replay.reconcile.recorded_facts import RecordedFacts

FROZEN = Path(__file__).parent.parent / "fixtures" / "frozen"
V1 = FROZEN / "v1-0.5.10-random.h5"
SCHEMA = Path(__file__).parent.parent / "docs" / "replay.schema.json"


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_older_versions_stay_readable(version: int) -> None:
    """What this format lacks is absent. Everything else replays as usual."""
    path = FROZEN / f"v{version}-0.5.10-random.h5"
    with h5py.File(path) as file:
        assert file.attrs["version"] == version and ("sents" in file) == (version >= 3)
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


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_a_copy_of_an_older_version_claims_no_more_than_its_source(
    version: int, tmp_path: Path
) -> None:
    """It is written in today's version.

    What the old version lacks stays absent and does not become zero.
    """
    old = hdf5.load(FROZEN / f"v{version}-0.5.10-random.h5")
    everybody = np.ones(len(old.rids), dtype=bool)
    half = np.arange(len(old.events.kind)) < len(old.events.kind) // 2
    steps = {
        "copy": old,
        "redact": redacted(old, SOURCE),
        "cut": Cutter(old, SOURCE)(everybody, half),
    }
    for name, made in steps.items():
        path = tmp_path / f"{name}.h5"
        hdf5.save(made, path)
        with h5py.File(path) as file:
            assert file.attrs["version"] == schema.VERSION
        loaded = hdf5.load(path)
        assert held.branches_not_held(loaded) == held.branches_not_held(old), name
        assert hdf5.is_saved(loaded, path)
    assert _told(hdf5.load(tmp_path / "copy.h5")) == _told(old)
    assert held.branches_not_held(old)


def _told(recording: Recording) -> list[tuple[dict[Fact, str], dict[Fact, str]]]:
    """Return both parts of what `reconcile` knows of each request."""
    sides = RecordedFacts(recording).sides(range(len(recording.rids)))
    return [
        ({fact: str(value) for fact, value in side.values.items()}, side.why_not)
        for side in sides.values()
    ]


@pytest.mark.parametrize("holds", [0, schema.VERSION + 1, "1", True, 2.0, None])
def test_a_file_with_the_content_of_an_unknown_version_is_refused(
    holds: Any, tmp_path: Path
) -> None:
    path = tmp_path / "x.h5"
    hdf5.save(hdf5.load(V1), path)
    with h5py.File(path, "a") as file:
        manifest = {**json.loads(file["manifest"][()].tobytes()), "holds": holds}
        text = json.dumps(manifest).encode()
        del file["manifest"]
        file["manifest"] = np.frombuffer(text, dtype=np.uint8)
        file.attrs["manifest_sha256"] = np.bytes_(hashlib.sha256(text).hexdigest())
    with pytest.raises(RecordingError, match=f"1 to {schema.VERSION} in holds"):
        hdf5.load(path)


def test_a_journal_of_an_older_version_becomes_a_recording(tmp_path: Path) -> None:
    """As when specdiff was upgraded between the recording and `recover`."""
    path = tmp_path / "frozen-1-0.journal"
    path.write_bytes((FROZEN / "journal-4-0.5.12-experts-overshoot.journal").read_bytes())
    assert path.read_bytes().startswith(b"specdiff-journal 4\n")
    made, same = build(path), bundled_recording("0.5.12-experts-overshoot")
    weights = next(law for law in LAWS if law.name == "weights")
    found = outcome_of(weights, Columns(made), observed(Columns(made)))
    assert (made.version, found.why_not_exercised) == (3, "not in format version 3")
    for name, table in TABLE_NAMES.items():
        for (column, one), (_, other) in zip(
            columns(getattr(made, name)), columns(getattr(same, name)), strict=True
        ):
            if column not in schema.columns_in(3, name, table):
                assert set(one.tolist()) <= {schema.NONE32, schema.NONE64}, (name, column)
            elif column != "time_ns":  # the same run of the same release
                assert np.array_equal(one, other), (name, column)
    assert np.array_equal(made.experts, same.experts) and len(made.experts) > 100
    assert np.array_equal(made.tokens, same.tokens)
    assert run(["recover", str(tmp_path)]) == SAME and not path.exists()
    (written,) = tmp_path.glob("*.h5")
    assert hdf5.load(written).version == 3
    assert (
        run(["replay", str(written), "--old", "observed", "--fixed", "old+22651+23456+24851"])
        == SAME
    )


@pytest.mark.parametrize("version", range(1, schema.VERSION))
@pytest.mark.parametrize("kind", [Kind.RESULT, Kind.PREPARE, Kind.FINISH, Kind.EXTEND])
def test_events_of_an_older_version_lack_later_columns(version: int, kind: Kind) -> None:
    event = schema.EVENT_TABLES[kind]
    rows = schema.ROW_TABLES.get(kind)
    held = schema.columns_in(version, event.__name__.lower(), event)
    held_rows = schema.columns_in(version, f"{kind.name.lower()}_rows", rows) if rows else ()
    fields = [*range(100, 100 + len(held) - 1), 2]  # the last one is the number of rows
    values = array("i", range(2 * len(held_rows)))
    packed = bytes(12) + array("q", fields).tobytes() + values.tobytes() + b"rest"
    found = unpack_event(kind, packed, version)
    assert found.blob == b"rest"
    told = dict(zip(held, fields, strict=True))
    expected = [told.get(field.name, schema.NONE64) for field in dataclasses.fields(event)]
    assert found.fields.tolist() == expected
    pairs = {name: values[2 * i : 2 * i + 2].tolist() for i, name in enumerate(held_rows)}
    absent = [schema.NONE32] * 2
    names = [field.name for field in dataclasses.fields(rows)] if rows else []
    assert found.rows.tolist() == [one for name in names for one in pairs.get(name, absent)]


def test_seeds_are_placed_by_the_columns_of_the_journals_own_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Synthetic: pretend that the last version added columns to prepares.

    Older seeds must still come before their prepare.
    """
    added = {**schema.ADDED, schema.VERSION: {"prepares": ("num_steps", "num_draft_tokens")}}
    monkeypatch.setattr(schema, "ADDED", added)
    _held.cache_clear()
    older = schema.VERSION - 1
    width = len(schema.columns_in(older, "prepares", schema.Prepares))
    events = [
        (Kind.GAP, [1], []),
        (Kind.PREPARE, [7, *[0] * (width - 2), 0], []),
        (Kind.SEED, [7, schema.NONE64, 1], [0, 1, 20, 5]),
    ]
    records = [
        (kind, bytes(12) + array("q", fields).tobytes() + array("i", rows).tobytes())
        for kind, fields, rows in events
    ]
    path = tmp_path / "x.journal"
    path.write_bytes(b"specdiff-journal 6\n" + journal.frames(records))
    assert journal.scan(path).format == older
    try:
        made = _read(path)[0].seeds
    finally:
        _held.cache_clear()
    assert set(made.ahead) == {1} and made.left_out == {2} and not made.in_place


def _known(version: int, recording: Recording) -> NDArray[np.bool_]:
    """Return for each event whether the version had its kind."""
    known = [
        int(kind)
        for kind, table in schema.EVENT_TABLES.items()
        if schema.columns_in(version, table.__name__.lower(), table)
    ]
    return np.isin(recording.events.kind, known)


def test_a_quantity_that_version_1_lacks_is_not_compared() -> None:
    assert run(["replay", str(V1), "--quantity", "released_len"]) == NO_VERDICT


def test_branches_that_version_1_lacks_are_not_counted_as_zero(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(["replay", str(V1), "--format", "json"])
    (result,) = json.loads(capsys.readouterr().out)
    jsonschema.validate([result], json.loads(SCHEMA.read_text()))
    assert {name for name, count in result["exercised"].items() if count is None} == set(BRANCHES)
    why = {name: quantity["why_not_compared"] for name, quantity in result["quantities"].items()}
    unheld = {name for name, said in why.items() if said == "not in format version 1"}
    assert unheld == {quantity.value for quantity in held.QUANTITIES}
    run(["replay", str(V1)])
    run(["info", str(V1)])
    table, info = capsys.readouterr().out.split("v1-0.5.10-random.h5\n")
    assert "turn-kept" not in next(line for line in table.splitlines() if "never reached" in line)
    assert "not in format version 1: grammar-done, release-" in table
    assert "docs/books.md#branches" in table and "docs/books.md#branches" in info
    assert (
        f"content of version 1; this specdiff writes version {schema.VERSION}" in info
        and "never reached" in info
    )
    assert "turn-kept" not in next(line for line in info.splitlines() if "never reached" in line)


def test_the_branches_listed_for_each_added_column_are_those_that_read_it() -> None:
    """Remove each added table or column.

    Exactly the branches whose counts then change must be listed for it.
    """
    seen = set()
    for name in ("0.5.10-random", "0.5.23-new-weights", "0.5.14-session-hole"):
        recording = falsified(bundled_recording(name))
        before = exercised(recording)
        places = [place for tables in schema.ADDED.values() for place in tables.items()]
        for table, added in places:
            if not added and table.endswith("_rows"):
                continue  # row tables are removed with their events
            for column in added or ("",):
                after = exercised(_without(recording, table, column))
                place = f"{table}.{column}" if column else table
                for branch in (branch for branch in before if before[branch] != after[branch]):
                    assert BRANCHES.get(branch) == place, (branch, place)
                    seen.add(branch)
    assert seen == set(BRANCHES)


def falsified(recording: Recording) -> Recording:
    """Return the recording with every branch reached that later versions added."""
    done = np.ones_like(recording.result_rows.grammar_done)
    saves, releases = recording.saves, recording.releases
    reasons = np.array([schema.Reason.ABORT, schema.NONE64])[np.arange(len(saves.reason)) % 2]
    return dataclasses.replace(
        recording,
        result_rows=dataclasses.replace(recording.result_rows, grammar_done=done),
        releases=dataclasses.replace(releases, released_len=releases.committed - 1),
        saves=dataclasses.replace(saves, reason=reasons, committed=saves.committed_before - 1),
    )


def _without(recording: Recording, name: str, column: str) -> Recording:
    table = getattr(recording, name)
    if column:
        values = getattr(table, column)
        absent = schema.NONE64 if values.dtype == np.int64 else schema.NONE32
        changed = dataclasses.replace(table, **{column: np.full_like(values, absent)})
        return dataclasses.replace(recording, **{name: changed})
    (kind,) = (kind for kind, made in schema.EVENT_TABLES.items() if isinstance(table, made))
    kept = recording.events.kind != kind
    events = {field: values[kept] for field, values in columns(recording.events)}
    emptied = {name: _emptied(table)}
    if kind in schema.ROW_TABLES:
        emptied[f"{kind.name.lower()}_rows"] = _emptied(recording.row_table(kind))
    return dataclasses.replace(recording, events=schema.Events(**events), **emptied)


def _emptied(table: Any) -> Any:
    return type(table)(*(values[:0] for _, values in columns(table)))


def test_columns_that_versions_added_exist_today() -> None:
    for tables in schema.ADDED.values():
        for name, added in tables.items():
            assert set(added) <= {field.name for field in dataclasses.fields(TABLE_NAMES[name])}
