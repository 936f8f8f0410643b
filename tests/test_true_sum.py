"""The true seq_lens_sum is computed in one place: a sum is called stale exactly where the law `sums` breaks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lifting import bundled_recording
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import NONE64, Kind, Mode
from specdiff.replay import spec
from specdiff.replay.branch import branch
from specdiff.replay.cause import cause
from specdiff.replay.columns.shared import Columns
from specdiff.replay.diff import SeriesDiff, diff
from specdiff.replay.explain import Toggles
from specdiff.replay.laws.sums import sums
from specdiff.replay.quantity import Quantity
from specdiff.replay.true_sum import stale_sums, true_sum
from specdiff.replay.verdict import ledger_of


def compared(columns: Columns, *paths: str) -> SeriesDiff:
    old, new = (ledger_of(columns, Toggles(columns), spec.parse(path)) for path in paths)
    (found,) = (
        one for one in diff(columns.recording, old, new) if one.quantity is Quantity.SEQ_LENS_SUM
    )
    return found


@pytest.mark.parametrize(
    ("name", "path", "checked", "stale"),
    [
        ("0.5.23-mixed", "observed", 80, 0),
        ("0.5.23-random", "observed", 339, 0),
        ("0.5.13-merge-filter", "observed", 63, 0),
        ("0.5.10-random", "observed", 407, 109),
        ("0.5.10-random", "old", 296, 62),
        ("0.5.23-mixed", "old", 101, 0),
    ],
)
def test_a_sum_is_stale_where_the_law_of_sums_breaks(
    name: str, path: str, checked: int, stale: int
) -> None:
    columns = Columns(bundled_recording(name))
    ledger = ledger_of(columns, Toggles(columns), spec.parse(path))
    places, series = sums(columns, ledger), ledger[Quantity.SEQ_LENS_SUM]
    found = stale_sums(series, true_sum(columns, series, path))
    assert (len(places.event), int((~places.holds).sum())) == (checked, stale)
    assert sorted(series.cells.event[found].tolist()) == places.event[~places.holds].tolist()


@pytest.mark.parametrize(
    ("name", "all_known"),
    [("0.5.23-random", False), ("0.5.23-mixed", False), ("0.5.12-merge-filter", True)],
)
def test_without_the_servers_own_lengths_no_sum_after_an_early_return_is_judged(
    name: str, all_known: bool
) -> None:
    """On a GPU they are not read. All other sums are still judged, and up to 0.5.12.post1 these, too."""
    recording = bundled_recording(name)
    filters, merges = recording.filters, recording.merges
    gpu = dataclasses.replace(
        recording,
        filters=dataclasses.replace(filters, device_sum=np.full_like(filters.device_sum, NONE64)),
        merges=dataclasses.replace(merges, device_sum=np.full_like(merges.device_sum, NONE64)),
    )
    early = (filters.num_rows == filters.size_before) & (filters.num_rows > 0)
    early &= filters.seq_lens_sum_after != NONE64
    judged = []
    for one in (recording, gpu):
        columns = Columns(one)
        places = sums(columns, ledger_of(columns, Toggles(columns), spec.parse("observed")))
        judged.append(dict(zip(places.event.tolist(), places.holds.tolist(), strict=True)))
    whole, part = judged
    left_out = [] if all_known else recording.event_of(Kind.FILTER)[early].tolist()
    assert part == {event: holds for event, holds in whole.items() if event not in left_out}
    assert len(part) > 20 and all(part.values()) != all_known


def falsified() -> tuple[Recording, int]:
    """Return a recording whose sum is too large by one at a mixed launch with tails, and the event of that launch."""
    recording = bundled_recording("0.5.23-mixed")
    launches = recording.launches
    mixed = np.flatnonzero((launches.mode == Mode.MIXED) & (launches.num_rows > 2))
    at = int(mixed[len(mixed) // 2])
    values = launches.seq_lens_sum.copy()
    values[at] += 1
    made = dataclasses.replace(launches, seq_lens_sum=values)
    event = int(recording.event_of(Kind.LAUNCH)[at])
    return dataclasses.replace(recording, launches=made), event


def test_a_divergence_names_the_same_true_sum_as_the_law() -> None:
    recording, event = falsified()
    columns = Columns(recording)
    found = compared(columns, "observed", "old")
    (cell,) = np.flatnonzero(found.old.cells.event == event)
    wrong, right = int(found.old.values[cell, 0]), int(found.new.values[cell, 0])
    assert wrong == right + 1
    says = f"after launch, observed is {wrong} (stale), old is {right} (true); true sum: {right}"
    assert cause(columns, found, int(cell)).startswith(says)
    assert branch(columns, found, int(cell)) == ("launch", "AFTER", "stale", "true")


def test_the_observed_sum_after_an_early_return_is_compared_with_the_servers_own_lengths() -> None:
    """From 0.5.13 on, the server's lengths are a step old there, and so is its sum.

    For rules it is not known which lengths they would have had, so their sum is neither true nor stale.
    """
    recording = bundled_recording("0.5.23-random")
    filters = recording.filters
    kept = (filters.num_rows == filters.size_before) & (filters.seq_lens_sum_after != NONE64)
    columns = Columns(recording)
    true = columns.true_sums.value[recording.event_of(Kind.FILTER)]
    at = int(np.flatnonzero(kept & (filters.device_sum != true))[0])
    found = compared(columns, "observed", "old")
    (cell,) = np.flatnonzero(found.old.cells.event == recording.event_of(Kind.FILTER)[at])
    held = int(filters.device_sum[at])
    says = f"after filter, observed is {held} (true), old is {held}; true sum: {held}"
    assert cause(columns, found, int(cell)).startswith(says)
    assert branch(columns, found, int(cell))[2:] == ("true", "unknown")
