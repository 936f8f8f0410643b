"""What a trainer does to a live server: it pauses generation, in place or retracting, flushes, and aborts a whole rollout."""

from __future__ import annotations

import pytest

from lifting import against_observed, books, release
from recorded import Recorder
from specdiff.recorders.recording import Recording
from specdiff.replay.columns.shared import Columns
from specdiff.replay.laws.check import check
from specdiff.replay.laws.law import State
from specdiff.replay.observed import observed
from test_fidelity import SEED

PLAYS = [("0.5.11", {"rows", "trainer", "returned", "stale", "sums"}), ("0.5.23", set[str]())]
"""And the laws that this release breaks without any trainer, too."""


@pytest.mark.live
@pytest.mark.parametrize(("version", "broken"), PLAYS)
def test_a_paused_server_equals_its_release_and_breaks_no_law_more(
    version: str, broken: set[str], record: Recorder
) -> None:
    """The rig holds the answers of all clients to their scripts meanwhile: new weights cost nobody a token."""
    recording = record(version, "random", SEED, "--paused")
    _equals_its_release(recording)
    outcomes = check(Columns(recording), observed(Columns(recording)), frozenset())
    assert {one.law.name for one in outcomes if one.state is State.BROKEN} == broken
    plain = record(version, "random", SEED)
    assert len(recording.retracts.qid) > 5 * len(plain.retracts.qid)


@pytest.mark.live
def test_a_rollout_that_is_aborted_whole_equals_its_release(record: Recorder) -> None:
    recording = record("0.5.23", "partial-rollout", SEED)
    _equals_its_release(recording)
    assert len(recording.aborts.qid) > len(recording.rids) // 4


def _equals_its_release(recording: Recording) -> None:
    with release(recording.run.sglang_version) as source:
        found = against_observed(recording, books(source))
    assert not [q for q, difference in found.items() if difference.differs.any()]
    assert sum(difference.num_compared for difference in found.values()) > 10_000
