"""The laws that a ring watches while it records: each event breaks the same laws as in `specdiff check`."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from journalled import records_of
from specdiff.cli.inputs import bundled
from specdiff.recorders import hdf5
from specdiff.recorders.build import build
from specdiff.recorders.capture import online
from specdiff.recorders.capture.online import Backoff, breaches
from specdiff.recorders.capture.recorder import Recorder
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import NONE32, NONE64, Kind
from specdiff.recorders.wire import unpack_event
from specdiff.replay.columns.shared import Columns
from specdiff.replay.laws.check import LAWS
from specdiff.replay.observed import observed

MIX = bundled() / "0.5.23-random.h5"
WATCHED = ("allocation", "rows", "statistics", "stride")


def test_a_law_that_stays_broken_triggers_less_and_less_often() -> None:
    """A ring of five minutes, and a law that breaks every ten seconds for a week. Another law triggers at once."""
    backoff, week = Backoff(300), range(0, 7 * 86_400, 10)
    heeded = {
        at: quiet for at in week if (quiet := backoff.wait_after("rows: 7 where 6 belong", at))
    }
    assert list(heeded)[:4] == [0, 300, 900, 2100] and len(heeded) == 11
    assert list(heeded.values())[:4] == [300, 600, 1200, 2400]
    assert backoff.wait_after("stride: rows of 3", week[-1]) == 300
    assert backoff.wait_after("stride: rows of 4", week[-1]) is None


@pytest.mark.parametrize("path", sorted(bundled().glob("*.h5")), ids=lambda path: path.stem)
def test_the_watched_laws_break_at_the_same_events_as_in_check(path: Path) -> None:
    recording = hdf5.load(path)
    assert _watched(recording) == _checked(recording)


@pytest.mark.parametrize(
    ("name", "table", "column", "change", "law"),
    [
        ("0.5.23-random", "prepare_rows", "committed_after", 1000, "allocation"),
        ("0.5.23-random", "prepare_rows", "committed_after", -1000, "allocation"),
        ("0.5.23-random", "prepare_rows", "allocated_before", 1000, "allocation"),
        ("0.5.23-random", "finishes", "committed", 1000, "allocation"),
        ("0.5.23-random", "finishes", "committed", -1000, "allocation"),
        ("0.5.23-random", "finishes", "experts_rows", 1, "rows"),
        ("0.5.23-random", "finishes", "finished_len", -1, "rows"),
        ("0.5.23-random", "finishes", "histogram_sum", 1, "statistics"),
        ("0.5.23-random", "finishes", "histogram_weighted", -1, "statistics"),
        ("0.5.13-indexer-topk", "finishes", "indexer_rows", -1, "rows"),
        ("0.5.23-random", "results", "stride", 1, "stride"),
        ("0.5.10-random", "results", "worker_stride", 1, "stride"),
    ],
)
def test_a_wrong_value_breaks_the_watched_law_as_in_check(
    name: str, table: str, column: str, change: int, law: str
) -> None:
    """Changes every third value that is present."""
    recording = hdf5.load(bundled() / f"{name}.h5")
    values = getattr(getattr(recording, table), column).copy()
    there = np.flatnonzero((values != NONE32) & (values != NONE64))[::3]
    values[there] += change
    wrong = with_column(recording, table, column, values)
    assert _watched(wrong) == _checked(wrong)
    assert law in {name for _, name in _watched(wrong)}


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("prepare_rows", "committed_after"),
        ("prepare_rows", "allocated_before"),
        ("prepare_rows", "allocated_after"),
        ("finishes", "committed"),
        ("finishes", "allocated"),
        ("finishes", "experts_state"),
        ("finishes", "experts_start"),
        ("finishes", "experts_rows"),
        ("finishes", "finished_len"),
        ("finishes", "start_len"),
        ("finishes", "spec_verify_ct"),
        ("finishes", "histogram_weighted"),
        ("results", "stride"),
    ],
)
def test_an_absent_value_breaks_the_same_laws_as_in_check(table: str, column: str) -> None:
    recording = hdf5.load(MIX)
    values = getattr(getattr(recording, table), column)
    absent = np.full_like(values, NONE32 if values.dtype == np.int32 else NONE64)
    without = with_column(recording, table, column, absent)
    assert _watched(without) == _checked(without)


def test_absent_values_do_not_hide_breaches_in_other_rows() -> None:
    recording = hdf5.load(MIX)
    values = -recording.prepare_rows.committed_after
    values[::2] = NONE32
    wrong = with_column(recording, "prepare_rows", "committed_after", values)
    assert _watched(wrong) == _checked(wrong) != set()


def test_a_length_is_compared_only_with_a_known_allocation() -> None:
    recording = hdf5.load(MIX)
    rows = recording.prepare_rows
    wrong = with_column(recording, "prepare_rows", "committed_after", -rows.committed_after)
    absent = np.full_like(rows.allocated_after, NONE32)
    assert _watched(wrong) == _checked(wrong) != set()
    unknown = with_column(wrong, "prepare_rows", "allocated_after", absent)
    assert _watched(unknown) == _checked(unknown) == set()


def test_rows_that_were_not_collected_at_all_break_the_law() -> None:
    recording = hdf5.load(MIX)
    wrong = with_column(recording, "finishes", "experts_state", 0 * recording.finishes.qid)
    assert _watched(wrong) == _checked(wrong) != set()


def test_an_exception_in_the_watch_loses_no_event(tmp_path: Path) -> None:
    recorder = Recorder(threading.Event(), tmp_path / "j", 1 << 20, hdf5.load(MIX).run, ring_s=9)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(online, "_WATCHED", {Kind.GAP: lambda values, columns: 1 / 0})
        assert recorder.emit(Kind.GAP, (5,))
        recorder.close()
    assert build(tmp_path / "j").gaps.dropped.tolist() == [5]
    assert recorder.exceptions == 1


@pytest.mark.parametrize("ring_s", [9, None])
def test_only_a_ring_is_watched_and_its_first_breach_is_kept_until_someone_acts(
    ring_s: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online, "_WATCHED", {Kind.GAP: lambda values, _: iter([f"{values[0]}"])})
    owner = threading.Event()
    recorder = Recorder(owner, tmp_path / "j", 1 << 20, hdf5.load(MIX).run, ring_s=ring_s)
    for numbers in ((5, 6), (7,)):
        recorder.breach = None
        for number in numbers:
            assert recorder.emit(Kind.GAP, (number,))
        assert recorder.writer.flush(5)
        assert recorder.breach == (f"{numbers[0]}" if ring_s else None)
    recorder.close()


def test_fewer_rows_from_an_unknown_start_break_no_law() -> None:
    recording = hdf5.load(MIX)
    absent = np.full_like(recording.finishes.start_len, NONE64)
    none = with_column(recording, "finishes", "experts_rows", 0 * recording.finishes.qid)
    assert _watched(none) == _checked(none) != set()
    unknown = with_column(none, "finishes", "start_len", absent)
    assert _watched(unknown) == _checked(unknown) == set()


def test_no_rows_are_due_if_their_start_is_past_the_end() -> None:
    recording = hdf5.load(MIX)
    far = with_column(
        recording, "finishes", "start_len", np.full_like(recording.finishes.qid, 10**6)
    )
    none = with_column(far, "finishes", "experts_rows", np.zeros_like(recording.finishes.qid))
    assert _watched(none) == _checked(none) == set()


def with_column(recording: Recording, table: str, column: str, values: NDArray[Any]) -> Recording:
    changed = replace(getattr(recording, table), **{column: values})
    return replace(recording, **{table: changed})


def _checked(recording: Recording) -> set[tuple[int, str]]:
    """Return events and the watched laws that they break according to `specdiff check`."""
    columns, found = Columns(recording), set()
    for law in (law for law in LAWS if law.name in WATCHED):
        places = law.check(columns, observed(columns))
        found |= {(event, law.name) for event in places.event[~places.holds].tolist()}
    return found - _unasked(recording)


def _unasked(recording: Recording) -> set[tuple[int, str]]:
    """Return the finishes of requests that asked for no rows. Up to 0.5.11 every one of them gets rows anyway."""
    finishes = recording.finishes
    unasked = (finishes.return_routed_experts != 1) & (finishes.indexer_state != 1)
    return {(event, "rows") for event in recording.event_of(Kind.FINISH)[unasked].tolist()}


def _watched(recording: Recording) -> set[tuple[int, str]]:
    """Return events and the laws that they break according to the recorder."""
    events = (record for record in records_of(recording) if isinstance(record[0], Kind))
    found = set()
    for at, (kind, payload) in enumerate(events):
        event = unpack_event(Kind(kind), payload)
        size = event.fields[-1] if event.rows else 0
        columns = [event.rows[i : i + size] for i in range(0, len(event.rows), size or 1)]
        for breach in breaches(event.kind, event.fields, columns):
            found.add((at, breach.partition(":")[0]))
    return found - _unasked(recording)
