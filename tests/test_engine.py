"""The columnar engine.

It equals an event-by-event engine on any recording, ignores observed values, and runs every set of
fixes.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference import reference_ledger
from specdiff.cli.inputs import bundled
from specdiff.recorders import hdf5
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import NONE32, NONE64, Kind, Mode
from specdiff.replay.cells import Moment
from specdiff.replay.columns.engine import ledger
from specdiff.replay.columns.shared import Columns
from specdiff.replay.diff import diff
from specdiff.replay.laws.check import LAWS
from specdiff.replay.ledger import Ledger
from specdiff.replay.observed import observed
from specdiff.replay.paths.fixes import ALL, NUMBERS, rules_of, subsets
from specdiff.replay.quantity import Quantity
from strategies import recordings

many = settings(max_examples=300, suppress_health_check=list(HealthCheck))
fix_sets = st.sets(st.sampled_from(NUMBERS)).map(frozenset)


def _cells(made: Ledger, quantity: Quantity) -> dict[tuple[int, int, str], int]:
    series = made[quantity]
    cells, found = series.cells, {}
    for cell in torch.nonzero(series.captured & (cells.kind != Kind.FINISH)).flatten().tolist():
        moment = "before" if cells.moment[cell] == Moment.BEFORE else "after"
        found[int(cells.event[cell]), int(cells.qid[cell]), moment] = int(series.values[cell, 0])
    return found


@many
@given(recordings(), fix_sets)
def test_columns_equal_the_event_by_event_reference(
    recording: Recording, fixes: frozenset[int]
) -> None:
    made, reference = (
        ledger(Columns(recording), rules_of(fixes), "x"),
        reference_ledger(recording, fixes),
    )
    assert _cells(made, Quantity.KV_COMMITTED_LEN) == reference.raw
    assert _cells(made, Quantity.KV_COMMITTED_LEN_SETTLED) == reference.settled
    assert _cells(made, Quantity.SPEC_VERIFY_CT) == reference.verify_ct
    assert _cells(made, Quantity.SPEC_ACCEPTED_DRAFTS) == reference.accepted


@many
@given(recordings())
def test_a_ledger_equals_itself_and_every_captured_value_is_compared(
    recording: Recording,
) -> None:
    columns = Columns(recording)
    for made in (ledger(columns, rules_of(ALL), "fixed"), observed(columns)):
        for difference in diff(recording, made, made):
            series = made[difference.quantity]
            assert not difference.differs.any()
            assert difference.num_compared == int(series.captured.sum())
            assert difference.num_compared + int(difference.not_captured.sum()) == len(series.cells)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(recordings())
def test_every_set_of_fixes_runs_and_has_the_same_cells(recording: Recording) -> None:
    columns = Columns(recording)
    sizes = {
        tuple(len(s.cells) for s in ledger(columns, rules_of(f), "x").series) for f in subsets(ALL)
    }
    assert len(sizes) == 1


_OBSERVED = {
    "extend_rows": ("committed", "allocated"),
    "prepare_rows": ("committed_before", "committed_after", "allocated_before", "allocated_after"),
    "result_rows": (
        "committed_before",
        "committed_after",
        "spec_verify_ct",
        "spec_accepted_drafts",
    ),
    "extends": ("seq_lens_sum",),
    "prepares": ("seq_lens_sum_before", "seq_lens_sum_after", "device_sum"),
    "launches": ("seq_lens_sum_entry", "seq_lens_sum"),
    "filters": ("seq_lens_sum_before", "seq_lens_sum_after", "device_sum"),
    "merges": ("seq_lens_sum_before", "other_seq_lens_sum", "seq_lens_sum_after", "device_sum"),
    "retracts": ("committed_before", "committed_after", "allocated_before", "allocated_after"),
    "finishes": (
        "committed",
        "allocated",
        "experts_start",
        "experts_rows",
        "indexer_start",
        "indexer_rows",
    ),
    "releases": ("committed", "allocated", "committed_after", "allocated_after"),
}


def _perturbed(recording: Recording) -> Recording:
    """Return the same events with every observed length, sum, counter and row count changed."""
    changed = {}
    for name, wrong in _OBSERVED.items():
        table = getattr(recording, name)
        changed[name] = dataclasses.replace(
            table, **{column: getattr(table, column) + 17 for column in wrong}
        )
    return dataclasses.replace(recording, **changed)


def _same(left: Ledger, right: Ledger) -> bool:
    return all(
        torch.equal(left[q].values, right[q].values)
        and torch.equal(left[q].captured, right[q].captured)
        for q in Quantity
    )


@pytest.mark.parametrize("path", sorted(bundled().glob("*.h5")), ids=lambda path: path.stem)
def test_only_the_observed_path_reads_observed_values(path: Path) -> None:
    recording = hdf5.load(path)
    before, after = Columns(recording), Columns(_perturbed(recording))
    for fixes in subsets(ALL):
        assert _same(ledger(before, rules_of(fixes), "x"), ledger(after, rules_of(fixes), "x"))
    assert not _same(observed(before), observed(after))


_MAY_BE_ABSENT = {
    **_OBSERVED,
    "results": ("stride", "batch_accepted_drafts"),
    "saves": ("committed",),
    "restores": ("committed",),
    "requests": ("start_len",),
    "sents": ("prompt_tokens", "num_output_ids", "num_logprobs", "experts_rows", "indexer_rows"),
    "finishes": (*_OBSERVED["finishes"], "start_len", "histogram_sum", "histogram_weighted"),
}


def _with_less(recording: Recording, chance: np.random.Generator) -> Recording:
    """Return the same events without half the values of some of these columns."""
    changed = {}
    for name, columns in _MAY_BE_ABSENT.items():
        table = getattr(recording, name)
        less = {}
        for column in columns:
            values = getattr(table, column)
            lost = (chance.random(len(values)) < 0.5) & (chance.random() < 0.5)
            absent = NONE32 if values.dtype == np.int32 else NONE64
            less[column] = np.where(lost, absent, values).astype(values.dtype)
        changed[name] = dataclasses.replace(table, **less)
    return dataclasses.replace(recording, **changed)


def _complaints(recording: Recording) -> set[tuple[str, int, int, str | int]]:
    """Return every place where the observed books break a law or differ from the fixed ones.

    A sum is left out of the differences: None is a state of it. So are the rows, because a start
    that was not captured counts as 0 in the fixed books.
    """
    columns = Columns(recording)
    server, found = observed(columns), set[tuple[str, int, int, str | int]]()
    for law in LAWS:
        places = law.check(columns, server)
        bad = ~places.holds
        names = [places.names[index] for index in places.counted[bad].tolist()]
        where = places.event[bad].tolist(), places.qid[bad].tolist()
        found |= {(law.name, *place) for place in zip(*where, names, strict=True)}
    for made in diff(recording, server, ledger(columns, rules_of(ALL), "fixed")):
        cells, bad = made.old.cells, made.differs
        if made.quantity not in (Quantity.SEQ_LENS_SUM, Quantity.ROUTED_EXPERTS):
            where = cells.event[bad].tolist(), cells.qid[bad].tolist()
            moments = cells.moment[bad].tolist()
            found |= {(made.quantity.value, *at) for at in zip(*where, moments, strict=True)}
    return found


@pytest.mark.parametrize(
    "name",
    [
        "0.5.10-stale-stop",
        "0.5.11-stale-retract",
        "0.5.13-per-token",
        "0.5.15-session-hole",
        "0.5.23-mixed",
    ],
)
def test_a_value_that_was_not_captured_breaks_no_law_and_never_differs(name: str) -> None:
    recording, chance = hdf5.load(bundled() / f"{name}.h5"), np.random.default_rng(1)
    whole, seen = _complaints(recording), 0
    for _ in range(8):
        found = _complaints(_with_less(recording, chance))
        assert found <= whole
        seen += len(found)
    assert seen > 0


def test_cells_are_in_the_order_in_which_the_server_had_their_values() -> None:
    """So the first cell that differs is the first place that differs."""
    columns, seen = Columns(hdf5.load(bundled() / "0.5.23-mixed.h5")), set[int]()
    for quantity in Quantity:
        cells = columns.cells[quantity]
        place = cells.event * 2 + (cells.moment == Moment.AFTER)
        assert torch.equal(place, place.sort().values)
        seen |= set(cells.moment.tolist())
    assert seen == {Moment.BEFORE, Moment.AFTER}


def test_every_row_belongs_to_the_event_that_counts_it(real_recording: Path) -> None:
    recording = hdf5.load(real_recording)
    for kind in (Kind.EXTEND, Kind.PREPARE, Kind.RESULT):
        owner = recording.owner(kind)
        assert np.array_equal(
            np.bincount(owner, minlength=len(recording.event_of(kind))),
            recording.event_table(kind).num_rows,
        )


def test_without_captured_claims_there_is_no_settled_value(real_recording: Path) -> None:
    recording = hdf5.load(real_recording)
    absent = np.full_like(recording.prepare_rows.committed_before, NONE32)
    rows = dataclasses.replace(recording.prepare_rows, committed_before=absent)
    columns = Columns(dataclasses.replace(recording, prepare_rows=rows))
    server = observed(columns)
    settled, raw = server[Quantity.KV_COMMITTED_LEN_SETTLED], server[Quantity.KV_COMMITTED_LEN]
    after_prepare = raw.cells.kind == Kind.RESULT
    assert raw.captured[after_prepare].all()
    assert not settled.captured[after_prepare].any()


def test_without_overlap_only_newer_books_have_sums(real_recording: Path) -> None:
    """Before #25879 a server without overlap ran spec v1, which kept other sums."""
    recording = hdf5.load(real_recording)
    run = dataclasses.replace(recording.run, overlap=False)
    columns = Columns(dataclasses.replace(recording, run=run))
    old, new = (ledger(columns, rules_of(fixes), "x") for fixes in (frozenset[int](), ALL))
    assert not old[Quantity.SEQ_LENS_SUM].captured.any()
    assert new[Quantity.SEQ_LENS_SUM].captured.all()
    assert old[Quantity.KV_COMMITTED_LEN].captured.all()


def test_none_at_a_decode_launch_is_excused_if_no_backend_needs_the_sum() -> None:
    recording = hdf5.load(bundled() / "0.5.13-merge-filter.h5")
    run = dataclasses.replace(recording.run, needs_cpu_seq_lens=False)
    for needed, recorded in ((True, recording), (False, dataclasses.replace(recording, run=run))):
        columns = Columns(recorded)
        old, new = (ledger(columns, rules_of(fixes), "x") for fixes in (frozenset[int](), ALL))
        (sums,) = [d for d in diff(recorded, old, new) if d.quantity is Quantity.SEQ_LENS_SUM]
        decodes = int((recorded.launches.mode == Mode.DECODE).sum())
        assert int(sums.excused.sum()) == (0 if needed else decodes)
        assert sums.num_compared + int(sums.excused.sum()) == len(sums.old.cells)


def test_none_at_a_prefill_launch_is_never_excused() -> None:
    recording = hdf5.load(bundled() / "0.5.13-merge-filter.h5")
    run = dataclasses.replace(recording.run, needs_cpu_seq_lens=False)
    changed = dataclasses.replace(recording, run=run)
    columns = Columns(changed)
    made = ledger(columns, rules_of(ALL), "x").only([Quantity.SEQ_LENS_SUM])
    (sums,) = made.series
    launch = int(np.flatnonzero(recording.launches.mode == Mode.EXTEND)[0])
    cell = int(torch.nonzero((sums.cells.kind == Kind.LAUNCH) & (sums.cells.row == launch)))
    values = sums.values.clone()
    values[cell] = NONE64
    other = dataclasses.replace(made, series=(dataclasses.replace(sums, values=values),))
    (found,) = diff(changed, made, other)
    assert torch.nonzero(found.differs).tolist() == [[cell]] and not found.excused.any()
