"""Tails, requests decoded beside a prefill chunk: both engines equal the server, and changes to their commit show."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from children import EVERYTHING, on_demand
from lifting import Changed, against_observed, bundled_recording, compiled, release
from recorded import RigRecorder
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import NONE32, Kind
from specdiff.replay.columns.shared import Columns
from specdiff.replay.decisions import GOES_ON, decisions
from specdiff.replay.diff import diff
from specdiff.replay.exercised import exercised
from specdiff.replay.explain import Toggles
from specdiff.replay.laws.check import check
from specdiff.replay.laws.law import State
from specdiff.replay.lift.missing import CannotRunError
from specdiff.replay.observed import observed
from specdiff.replay.quantity import Quantity as Q
from specdiff.replay.tails import tails
from test_fidelity import fixes_of

ENDS = (*on_demand("0.5.19"), "0.5.23")  # first and last release with mixed chunk under speculation
PROCESS = "srt/managers/scheduler_components/batch_result_processor.py"
PREFILL = (PROCESS, "process_batch_result_prefill")
COMMIT = "req.kv.kv_committed_len += 1"
COMMITS = frozenset({Q.KV_COMMITTED_LEN, Q.KV_COMMITTED_LEN_SETTLED})


@pytest.fixture(params=ENDS)
def recording(request: pytest.FixtureRequest, record: RigRecorder) -> Recording:
    made = record(request.param, "mixed-random", 1)
    reached = exercised(made)
    names = ("tail", "tail-ends", "tail-stale", "retract", "abort-running", "stop-mid-run")
    assert {name: reached[name] for name in names if not reached[name]} == {}
    return made


def test_lifted_functions_and_rules_equal_the_server_under_mixed_chunk(
    recording: Recording,
) -> None:
    with release(recording.run.sglang_version) as source:
        lifted = against_observed(recording, compiled(source))
    for quantity, found in lifted.items():
        assert not found.differs.any(), quantity
        if quantity not in (Q.INDEXER_TOPK, Q.SESSION_COMMITTED):  # this server has neither
            assert found.num_compared == len(found.old.cells) > 0, quantity
    columns = Columns(recording)
    for found in diff(recording, observed(columns), Toggles(columns)(fixes_of("0.5.23"))):
        assert not found.differs.any(), found.quantity
        if found.quantity in COMMITS | {Q.SEQ_LENS_SUM, Q.SPEC_VERIFY_CT}:
            assert found.num_compared == len(found.old.cells), found.quantity


@pytest.mark.skipif(not EVERYTHING, reason="slow: set SPECDIFF_TEST_ALL_RELEASES")
def test_both_engines_equal_the_server_without_overlap(record: RigRecorder) -> None:
    """There a launch adds the tokens of its own result to the sum. That of a tail must be counted once."""
    recording = record("0.5.19", "mixed-random", 1, "--disable-overlap")
    columns, rules = Columns(recording), fixes_of("0.5.23")
    with release("0.5.19") as source:
        lifted = against_observed(recording, compiled(source))
    assert not any(found.differs.any() for found in lifted.values())
    (sums,) = [
        found
        for found in diff(recording, observed(columns), Toggles(columns)(rules))
        if found.quantity is Q.SEQ_LENS_SUM
    ]
    assert not sums.differs.any() and sums.num_compared == len(sums.old.cells) > 1000


def test_tails_are_recognized_from_the_order_of_events(recording: Recording) -> None:
    """In the result of an extend, the server commits one token for a tail that goes on, and none for other requests."""
    rows, found = recording.result_rows, tails(recording).answered
    made, goes_on = decisions(recording), np.zeros(len(found), dtype=bool)
    goes_on[made.row[made.finish == GOES_ON]] = True
    seen = (rows.accept_len == NONE32) & (rows.committed_after != NONE32)
    grown = rows.committed_after[seen] - rows.committed_before[seen]
    assert np.array_equal(grown, (found & goes_on)[seen].astype(np.int32))


def test_the_law_of_commits_covers_tails(recording: Recording) -> None:
    columns = Columns(recording)
    laws = {one.law.name: one for one in check(columns, observed(columns))}
    assert State.BROKEN not in {one.state for one in laws.values()}
    row = int(np.flatnonzero(tails(recording).answered & (recording.result_rows.finished == 0))[9])
    wrong = recording.result_rows.committed_after.copy()
    wrong[row] += 1
    changed = dataclasses.replace(
        recording, result_rows=dataclasses.replace(recording.result_rows, committed_after=wrong)
    )
    columns = Columns(changed)
    broken = next(one for one in check(columns, observed(columns)) if one.law.name == "commit")
    assert broken.state is State.BROKEN and broken.num_broken == 1 and broken.first is not None
    assert broken.first.event == recording.event_of(Kind.RESULT)[recording.owner(Kind.RESULT)[row]]


BROKEN = {
    "a token too many": (*PREFILL, COMMIT, f"{COMMIT[:-1]}2", COMMITS | {Q.KV_ALLOCATED_LEN}),
    "committed where it ends, too": (
        *PREFILL,
        "not req.finished()\n                        and batch.decoding_reqs",
        "batch.decoding_reqs",
        COMMITS,
    ),
    "without the guard for retracted requests": (*PREFILL, ") or req.is_retracted:", "):", COMMITS),
    "without the guard for finished requests": (
        *PREFILL,
        "req.finished() and req.inflight_middle_chunks <= 0",
        "False",
        COMMITS,
    ),
    "the sum without the token about to be written": (
        "srt/managers/overlap_utils.py",
        "resolve_mixed_spec_tails",
        "seq_lens_cpu[-n:] = fresh_cpu + 1",
        "seq_lens_cpu[-n:] = fresh_cpu",
        {Q.SEQ_LENS_SUM},
    ),
    "mixed with a token too many": (
        "srt/managers/schedule_batch.py",
        "mix_with_running",
        "[self.seq_lens_cpu, running_seq_lens_cpu]",
        "[self.seq_lens_cpu + 1, running_seq_lens_cpu]",
        {Q.SEQ_LENS_SUM},
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_line_shows_in_the_expected_quantities(what: str, record: RigRecorder) -> None:
    path, function, old, new, shows = BROKEN[what]
    with release("0.5.23") as source:
        made = compiled(Changed(source, path, function, old, new))
    found = against_observed(record("0.5.23", "mixed-random", 1), made)
    differs = {quantity for quantity, one in found.items() if one.differs.any()}
    assert shows <= differs <= shows | {Q.RELEASED_LEN}


STRANGE = {
    "another amount": (COMMIT, "req.kv.kv_committed_len += next_token_id", "by next_token_id"),
    "twice": (COMMIT, f"{COMMIT}; {COMMIT}", "and in 1 more"),
    "where it is not decoding": (
        f"                        {COMMIT}",
        f"                        pass\n                    else:\n                        {COMMIT}",
        "in an unknown branch",
    ),
    "another way out of the loop": (
        "req.time_stats.set_prefill_finished_time()",
        "break",
        "may leave the loop in an unknown way",
    ),
}


@pytest.mark.parametrize("what", STRANGE)
def test_a_commit_in_another_shape_is_refused(what: str) -> None:
    old, new, why = STRANGE[what]
    with (
        release("0.5.23") as source,
        pytest.raises(CannotRunError, match=rf"kv_committed_len in line \d+ .*{why}"),
    ):
        compiled(Changed(source, *PREFILL, old, new))


def test_if_the_commit_of_tails_is_not_found_only_recordings_with_tails_are_refused(
    record: RigRecorder,
) -> None:
    with release("0.5.23") as source:
        moved = compiled(Changed(source, *PREFILL, COMMIT, "self._commit_tail(req)"))
    with release("0.5.18") as source:
        older = compiled(source)
    for made in (moved, older):
        with pytest.raises(CannotRunError, match=r"beside a prefill chunk.*from 0\.5\.19 on"):
            against_observed(record("0.5.23", "mixed-random", 1), made)
        assert against_observed(bundled_recording("0.5.23-random"), made)
