"""Long recordings: keys that need 64 bits, and work or memory that must not grow with the square of the length.

No test measures time. They compare results with those of short recordings, and count what is allocated or read.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from journalled import journal_of, records_of
from lifting import bundled_recording
from specdiff.cli.inputs import bundled
from specdiff.cli.main import BROKEN, run
from specdiff.recorders import hdf5, journal, recover
from specdiff.recorders.build import build
from specdiff.recorders.composition import members_before
from specdiff.recorders.recording import TABLE_NAMES, Recording, columns
from specdiff.recorders.schema import (
    EVENT_TABLES,
    ROW_TABLES,
    Arrives,
    Events,
    ExtendRows,
    Gaps,
    Kind,
)
from specdiff.replay import verdict
from specdiff.replay.aligned import align
from specdiff.replay.cells import Cells, at_same_places, cells_of
from specdiff.replay.columns import shared
from specdiff.replay.columns.committed_len import CommittedByTouch
from specdiff.replay.columns.shared import Columns
from specdiff.replay.decisions import decisions
from specdiff.replay.diff import diff
from specdiff.replay.flat import flat
from specdiff.replay.ledger import Series
from specdiff.replay.outputs import outputs
from specdiff.replay.quantity import Quantity
from specdiff.replay.shrink.symptom import Question
from specdiff.replay.spec import parse
from specdiff.replay.timeline import timelines
from specdiff.replay.verdict import compare, replay

APART = 1 << 16


def among_many(recording: Recording, numbers: dict[int, int]) -> Recording:
    """Number the requests anew among 2^17 and add arrivals until there are 2^16 - 1 events: request x event passes 2^32."""
    many, events = 2 * APART, recording.events
    idle = APART - 1 - len(events.kind)  # the events and the place after the last one are 2^16
    number = np.arange(many)
    for qid, other in numbers.items():
        number[qid] = other
    changed: dict[str, Any] = {}
    for name in TABLE_NAMES:
        table = getattr(recording, name)
        if hasattr(table, "qid"):
            changed[name] = replace(table, qid=number[table.qid].astype(table.qid.dtype))
    first = len(recording.arrives.qid)
    theirs = np.arange(APART // 2, APART // 2 + idle)
    arrives = changed["arrives"]
    changed["arrives"] = Arrives(
        np.append(arrives.qid, theirs), np.append(arrives.requeued, np.zeros_like(theirs))
    )
    changed["events"] = Events(
        kind=np.append(events.kind, np.full(idle, int(Kind.ARRIVE))),
        ref=np.append(events.ref, first + np.arange(idle)),
        iteration=np.append(events.iteration, np.full(idle, events.iteration[-1])),
        time_ns=np.append(events.time_ns, np.full(idle, events.time_ns[-1])),
    )
    size = np.zeros(many, dtype=np.int64)
    changed["requests"] = replace(
        recording.requests, **{name: size for name, _ in columns(recording.requests)}
    )
    rids, details = tuple(map(str, range(many))), ("{}",) * many
    return replace(recording, rids=rids, details=details, **changed)


def test_keys_of_request_and_event_are_computed_in_64_bits() -> None:
    """A chunk and another request of the same extend get keys that differ only above bit 32."""
    recording = bundled_recording("0.5.13-chunked")
    rows = np.flatnonzero(recording.owner(Kind.EXTEND) == 6)
    swapped = np.arange(len(recording.extend_rows.qid))
    swapped[rows] = rows[::-1]  # the chunk comes first, because of equal keys the last one is found
    turned = {name: values[swapped] for name, values in columns(recording.extend_rows)}
    recording = replace(recording, extend_rows=ExtendRows(**turned))
    chunked, other = recording.extend_rows.qid[rows].tolist()
    assert recording.extend_rows.chunked[rows].tolist() == [1, 0]
    made = decisions(among_many(recording, {other: chunked + APART}))
    whole = decisions(recording)
    assert np.array_equal(made.row, whole.row)
    assert np.array_equal(made.finish, whole.finish)


class Counted(np.ndarray):
    """A column that counts the values that are read from it by index."""

    picked = 0

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        Counted.picked += np.size(found)
        return found


def test_outputs_of_all_requests_read_each_row_a_bounded_number_of_times() -> None:
    recording = bundled_recording("0.5.23-random")
    rows = recording.result_rows
    counted = replace(recording, result_rows=replace(rows, qid=rows.qid.view(Counted)))
    Counted.picked = 0
    outputs(counted, range(len(counted.rids)))
    assert 0 < Counted.picked < 10 * len(rows.qid)


def test_building_a_journal_needs_less_than_four_times_its_size_in_memory(tmp_path: Path) -> None:
    """A journal of hours has gigabytes. Memory may hold the journal and the tables made of it, but no third copy."""
    records = records_of(bundled_recording("0.5.10-random"), times=20)
    path = tmp_path / "long.journal"
    path.write_bytes(journal.HEADER + journal.frames(records))
    del records
    peak, size = peak_of(lambda: build(path)), path.stat().st_size
    assert peak < 3.5 * size


def test_loading_routed_rows_makes_no_second_copy(tmp_path: Path) -> None:
    """With `--experts full` they are gigabytes, so computing their digest must not copy them."""
    recording, times = bundled_recording("0.5.23-random"), 4000
    finishes = recording.finishes
    many = replace(
        recording,
        finishes=replace(finishes, experts_stored=finishes.experts_stored * times),
        experts=np.tile(recording.experts, (times, 1, 1)),
    )
    path = tmp_path / "rows.h5"
    hdf5.save(many, path)
    assert peak_of(lambda: hdf5.load(path)) < 1.5 * many.experts.nbytes


@pytest.mark.parametrize("path", ["observed", "old"])
def test_only_the_quantities_that_are_needed_are_computed(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All twelve quantities over millions of rows would take gigabytes.

    Covers a replay of one quantity, the life of one request, and one question of `shrink`.
    """
    made = set[Quantity]()

    def noted(recording: Recording, quantity: Quantity) -> Cells:
        made.add(quantity)
        return cells_of(recording, quantity)

    monkeypatch.setattr(shared, "cells_of", noted)
    recording, new = bundled_recording("0.5.23-random"), parse("fixed")
    replay(recording, parse(path), new, [Quantity.RELEASED_LEN])
    flat(recording, [parse(path)], [Quantity.RELEASED_LEN])
    Question(parse(path), new, Quantity.RELEASED_LEN)(recording)
    assert made == {Quantity.RELEASED_LEN}
    made.clear()
    timelines(recording, recording.rids[0], [parse(path), new])
    assert made == {Quantity.ROUTED_EXPERTS, Quantity.RELEASED_LEN, Quantity.SESSION_COMMITTED}


def test_quantities_with_the_same_cells_share_them() -> None:
    """The cells take most of a replay's memory. The shared ones equal those that each quantity would have alone."""
    recording = bundled_recording("0.5.23-random")
    cells = Columns(recording).cells
    assert cells[Quantity.KV_COMMITTED_LEN] is cells[Quantity.KV_COMMITTED_LEN_SETTLED]
    assert cells[Quantity.SPEC_VERIFY_CT] is cells[Quantity.SPEC_ACCEPTED_DRAFTS]
    for quantity in Quantity:
        own, held = cells_of(recording, quantity), cells[quantity]
        names = ("event", "kind", "moment", "row", "qid")
        assert all(torch.equal(getattr(own, name), getattr(held, name)) for name in names), quantity


@pytest.mark.parametrize("old", ["old", "observed", "sglang==0.5.9"])
def test_a_replay_holds_the_values_of_few_quantities_at_a_time(
    old: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only quantities with the same cells are in memory together. The result equals that of all at once."""
    held: set[frozenset[Quantity]] = set()

    def noted(*args: Any) -> Any:
        gc.collect()
        alive = gc.get_objects()
        held.add(frozenset(one.quantity for one in alive if type(one) is Series))
        assert not any(
            type(one) is CommittedByTouch for one in alive
        )  # only needed to compute the values
        return diff(*args)

    recording, paths = bundled_recording("0.5.23-random"), (parse(old), parse("fixed"))
    assert compare(Columns(recording), *paths) == replay(recording, *paths)
    gc.collect()
    monkeypatch.setattr(verdict, "diff", noted)
    replay(recording, *paths)
    assert held == {frozenset(some) for some in at_same_places(Quantity)}


@pytest.mark.parametrize("old", ["old", "observed", "sglang==0.5.9"])
def test_quantities_are_reported_once_each_in_the_order_asked_for(old: str) -> None:
    """The left path and the grouping for comparison must not change the order."""
    asked = [Quantity.SPEC_VERIFY_CT, Quantity.KV_COMMITTED_LEN, Quantity.SPEC_ACCEPTED_DRAFTS]
    result = replay(bundled_recording("0.5.23-random"), parse(old), parse("fixed"), asked + asked)
    assert [one.quantity for one in result.quantities] == asked


def test_the_members_of_batches_are_found_without_a_python_list_of_all_rows() -> None:
    """A cut (`shrink`, `--sample`) needs them for the whole recording. A number takes ten times as much in a list."""
    recording = among_each_other(bundled_recording("0.5.23-random"), 100)
    rows = sum(len(recording.row_table(kind).qid) for kind in ROW_TABLES)
    assert peak_of(lambda: members_before(recording)) < 15 * rows


def among_each_other(recording: Recording, times: int) -> Recording:
    """Return the recording with every row repeated `times` times within its batch."""
    changed: dict[str, Any] = {}
    for kind, cls in ROW_TABLES.items():
        table, events = recording.row_table(kind), recording.event_table(kind)
        owner = np.tile(recording.owner(kind), times)
        order = np.argsort(owner, kind="stable")
        rows = {name: np.tile(values, times)[order] for name, values in columns(table)}
        name = f"{kind.name.lower()}_rows"
        changed[name] = cls(**rows)
        sizes = {"num_rows": events.num_rows * times}
        if kind is Kind.FILTER:
            sizes["size_before"] = events.size_before * times
        changed[EVENT_TABLES[kind].__name__.lower()] = replace(events, **sizes)
    return replace(recording, **changed)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 26.2 MiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    ],
)
def test_too_little_memory_is_reported_in_one_line_without_a_traceback(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(path: Path) -> Recording:
        raise error

    monkeypatch.setattr(hdf5, "load", load)
    assert run(["replay", str(bundled() / "0.5.23-random.h5")]) == BROKEN
    said = capsys.readouterr().err
    assert said.startswith(f"specdiff: not enough memory ({error})")
    assert said.count("\n") == 1


def test_a_journal_too_large_for_memory_is_kept_and_the_others_are_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = journal_of(bundled_recording("0.5.23-random"))
    large, small = tmp_path / "run-1-0.journal", tmp_path / "run-2-0.journal"
    for path in (large, small):
        path.write_bytes(whole)

    def built(path: Path) -> Recording:
        if path == large:
            raise MemoryError
        return build(path)

    monkeypatch.setattr(recover, "build", built)
    kept, recovered = recover.recover(tmp_path)
    assert (
        isinstance(kept, recover.NotRecovered)
        and "not enough memory" in kept.why
        and large.exists()
    )
    assert isinstance(recovered, recover.Recovered) and not small.exists()


class Compared(np.ndarray):
    """A column that counts the values that computations read from it."""

    values = 0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        Compared.values += self.size
        plain = [one.view(np.ndarray) if isinstance(one, Compared) else one for one in inputs]
        return getattr(ufunc, method)(*plain, **options)


def test_aligning_two_ranks_does_not_scan_all_steps_for_each_gap() -> None:
    """If a disk is too slow for hours, each of two ranks has thousands of gaps."""
    recording = bundled_recording("0.5.23-random")
    places = np.arange(10, len(recording.events.kind), 5)
    compared, left = [], []
    for some in (places[:4], places):
        gapped = with_gaps(recording, some)
        steps = gapped.events.iteration.view(Compared)
        counted = replace(gapped, events=replace(gapped.events, iteration=steps))
        Compared.values = 0
        aligned = align(counted, gapped)
        compared.append(Compared.values)
        left.append(aligned.left)
        touched = {int(steps[at + side]) for at in gapped.event_of(Kind.GAP) for side in (-1, 1)}
        assert not touched & set(gapped.events.iteration[aligned.left].tolist())
    assert len(left[0]) > len(left[1]) > 0
    assert compared[1] < 2 * compared[0] + len(recording.events.kind)


def with_gaps(recording: Recording, places: np.ndarray) -> Recording:
    """Insert a gap of one lost event before each of these places."""
    events = recording.events
    kind = np.insert(events.kind, places, int(Kind.GAP))
    made = Events(
        kind=kind,
        ref=np.insert(events.ref, places, np.arange(len(places))),
        iteration=np.insert(events.iteration, places, events.iteration[places]),
        time_ns=np.insert(events.time_ns, places, events.time_ns[places]),
    )
    return replace(recording, events=made, gaps=Gaps(np.ones(len(places), dtype=np.int64)))


def peak_of(work: Callable[[], object]) -> int:
    """Return the peak of memory that Python and numpy allocate during `work`, in bytes."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
