"""The proof that the tool tells the truth.

Recorded live, `observed` equals the release's set of fixes at every event.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from children import on_demand
from recorded import RigRecorder
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import NONE32, NONE64, Kind, Reason
from specdiff.replay import spec
from specdiff.replay.columns.engine import RULED
from specdiff.replay.columns.shared import Columns
from specdiff.replay.diff import SeriesDiff, diff
from specdiff.replay.exercised import exercised
from specdiff.replay.explain import Toggles
from specdiff.replay.observed import observed
from specdiff.replay.paths.fixes import ALL, subsets
from specdiff.replay.quantity import Quantity as Q

SEED = 3
COMMITS = {Q.KV_COMMITTED_LEN, Q.KV_COMMITTED_LEN_SETTLED}
COUNTS = {Q.SPEC_VERIFY_CT, Q.SPEC_ACCEPTED_DRAFTS}

# release -> the only set of fixes that equals it
ERAS = {
    "0.5.10": "old",
    "0.5.11": "old+22651",
    "0.5.12": "old+22651+23456+24851",
    "0.5.13": "fixed",
    "0.5.23": "fixed-22651",
}
# two neighboring eras -> the quantities in which they differ
STEPS = [
    ("0.5.10", "0.5.11", COMMITS),
    ("0.5.11", "0.5.12", {*COMMITS, *COUNTS, Q.ROUTED_EXPERTS}),
    ("0.5.12", "0.5.13", {Q.SEQ_LENS_SUM, Q.ROUTED_EXPERTS}),
    ("0.5.13", "0.5.23", {Q.KV_COMMITTED_LEN}),
]
# what every random run must reach
MUST_REACH = (
    "stale-finished-1",
    "stale-finished-many",
    "stale-retracted-many",
    "stop-mid-run",
    "length-overshoot",
    "rows-overshoot",
    "rows-not-requested",
    "start-len",
    "cached-prefix",
    "merge",
    "filter",
    "filter-early-return",
    "re-prefill",
    "abort-running",
    "abort-queued",
)


def against(recording: Recording, fixes: frozenset[int]) -> dict[Q, SeriesDiff]:
    columns = Columns(recording)
    made = diff(recording, observed(columns), Toggles(columns)(fixes))
    return {difference.quantity: difference for difference in made}


def fixes_of(release: str) -> frozenset[int]:
    path = spec.parse(ERAS[release])
    assert isinstance(path, spec.FixSet)
    return path.fixes


@pytest.mark.parametrize("release", ERAS)
def test_observed_equals_the_era_and_no_other_set_of_fixes(
    release: str, record: RigRecorder
) -> None:
    recording = record(release, "random", SEED)
    columns = Columns(recording)
    toggles, server = Toggles(columns), observed(columns)
    equal = [
        f
        for f in subsets(ALL)
        if not any(d.differs.any() for d in diff(recording, server, toggles(f)))
    ]
    assert equal == [fixes_of(release)]


@pytest.mark.parametrize("release", ERAS)
def test_every_quantity_is_captured_and_every_branch_reached(
    release: str, record: RigRecorder
) -> None:
    recording = record(release, "random", SEED)
    reached = exercised(recording)
    assert {name: reached[name] for name in MUST_REACH if not reached[name]} == {}
    assert reached["result-unpaired"] == reached["gap"] == 0
    assert (
        recording.stats is not None and recording.stats.exceptions == recording.stats.dropped == 0
    )
    for quantity, difference in against(recording, fixes_of(release)).items():
        # This server has no indexer, and the report must say so.
        if quantity is not Q.INDEXER_TOPK and quantity in RULED:
            assert not difference.not_captured.any(), quantity
            assert difference.num_compared == len(difference.old.cells) > 0
        else:
            assert difference.num_compared == 0
    assert len(recording.launch_rows.qid) == len(recording.result_rows.qid)


@pytest.mark.parametrize(("release", "neighbor", "changed"), STEPS)
def test_neighboring_eras_differ_in_exactly_what_changed(
    release: str, neighbor: str, changed: set[Q], record: RigRecorder
) -> None:
    """In both directions: each side's recording is replayed with the other side's books."""
    for recorded, books in ((release, neighbor), (neighbor, release)):
        found = against(record(recorded, "random", SEED), fixes_of(books))
        assert {
            quantity for quantity, difference in found.items() if difference.differs.any()
        } == changed


def final_committed(recording: Recording) -> dict[int, int]:
    """Return qid -> last committed length in the server, for finishes without an abort."""
    last: dict[int, tuple[int, int]] = {}
    for kind, qids, values in (
        (Kind.RESULT, recording.result_rows.qid, recording.result_rows.committed_after),
        (Kind.PREPARE, recording.prepare_rows.qid, recording.prepare_rows.committed_after),
    ):
        events = recording.event_of(kind)[recording.owner(kind)]
        for qid, event, value in zip(qids.tolist(), events.tolist(), values.tolist(), strict=True):
            if value != NONE32:
                last[qid] = max(last.get(qid, (-1, 0)), (event, value))
    finishes = recording.finishes
    good = finishes.qid[finishes.reason != Reason.ABORT].tolist()
    return {qid: last[qid][1] for qid in good if qid in last}


@pytest.mark.parametrize("release", ERAS)
def test_wrong_final_lengths_are_exactly_the_stale_finished_requests(
    release: str, record: RigRecorder
) -> None:
    recording = record(release, "random", SEED)
    finishes = recording.finishes
    true = dict(
        zip(
            finishes.qid.tolist(),
            (finishes.origin_len + finishes.output_len - 1).tolist(),
            strict=True,
        )
    )
    final = final_committed(recording)
    wrong = {qid for qid, committed in final.items() if committed != true[qid]}
    rows = recording.result_rows
    stale = (
        set(rows.qid[(rows.finished == 1) & (rows.accept_len != NONE32)].tolist()) & final.keys()
    )
    assert len(stale) > 30
    assert wrong == (stale if release in ("0.5.10", "0.5.11") else set())


def test_sums_between_steps_are_stale_on_0_5_12_only(record: RigRecorder) -> None:
    """On 0.5.12 filter and merge leave sums that contradict batch.seq_lens.

    From 0.5.13 on they never do.
    """
    for release, contradicted in (("0.5.12", True), ("0.5.13", False)):
        recording = record(release, "random", SEED)
        for table in (recording.filters, recording.merges):
            alive = table.num_rows > 0
            number = alive & (table.seq_lens_sum_after != NONE64)
            stale = number & (table.seq_lens_sum_after != table.device_sum)
            assert stale.any() == contradicted, (release, np.count_nonzero(stale))
            assert (alive & ~number).any() == (release == "0.5.13")
        true = Columns(recording).true_sums
        at = recording.event_of(Kind.LAUNCH)
        assert np.array_equal(recording.launches.seq_lens_sum, true.value[at]), (
            "at the forward the sums of both releases are right"
        )


def test_derived_true_lengths_equal_those_on_the_device(record: RigRecorder) -> None:
    """Up to 0.5.12 batch.seq_lens is the next length after a launch, so it must equal ours."""
    recording = record("0.5.12", "random", SEED)
    true = Columns(recording).true_sums
    for kind in (Kind.PREPARE, Kind.FILTER, Kind.MERGE):
        table, events = recording.event_table(kind), recording.event_of(kind)
        alive = table.num_rows > 0
        assert alive.any()
        assert np.array_equal(table.device_sum[alive], true.value[events][alive])


def test_old_and_fixed_first_differ_at_the_first_stale_result(record: RigRecorder) -> None:
    recording = record("0.5.10", "random", SEED)
    columns = Columns(recording)
    toggles = Toggles(columns)
    parted = {d.quantity: d for d in diff(recording, toggles(frozenset()), toggles(ALL))}
    first = int(torch.nonzero(parted[Q.KV_COMMITTED_LEN_SETTLED].differs).flatten()[0])
    cells, rows = parted[Q.KV_COMMITTED_LEN_SETTLED].old.cells, recording.result_rows
    stale = (rows.accept_len != NONE32) & ((rows.finished == 1) | (rows.is_retracted == 1))
    events = recording.event_of(Kind.RESULT)[recording.owner(Kind.RESULT)]
    assert int(cells.event[first]) == int(events[stale].min())


@pytest.mark.parametrize("release", [*on_demand("0.5.23"), "0.5.13"])
def test_without_overlap_the_books_are_the_same(release: str, record: RigRecorder) -> None:
    """From 0.5.13 on spec v2 also runs without the overlap scheduler.

    Results then come before the next prepare.
    """
    recording = record(release, "random", SEED, "--disable-overlap")
    assert not recording.run.overlap
    reached = exercised(recording)
    assert reached["live-result"] > 500
    assert reached["stale-finished-1"] == reached["stale-finished-many"] == 0
    for quantity, difference in against(recording, fixes_of(release)).items():
        assert not difference.differs.any(), quantity
        if quantity in RULED - {Q.INDEXER_TOPK}:
            assert not difference.not_captured.any() and difference.num_compared > 100, quantity
