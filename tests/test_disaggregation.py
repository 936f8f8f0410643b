"""Each side of a disaggregated server, recorded live with sglang's fake transfer.

The tests pin what can be replayed of one side alone.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from gaps import without
from lifting import against_observed, compiled, release
from recorded import RigRecorder
from specdiff.recorders.errors import NoVerdictError
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import Mode
from specdiff.replay.columns.shared import Columns
from specdiff.replay.diff import SeriesDiff, diff
from specdiff.replay.exercised import exercised
from specdiff.replay.explain import Toggles
from specdiff.replay.laws.check import check
from specdiff.replay.laws.law import State
from specdiff.replay.observed import observed
from specdiff.replay.quantity import Quantity as Q
from test_fidelity import fixes_of

RELEASE = "0.5.23"
ABSENT = {Q.ROUTED_EXPERTS, Q.INDEXER_TOPK, Q.SESSION_COMMITTED}  # these servers have none of them
REACHED = ("stale-finished-many", "stale-retracted-many", "retract", "re-prefill", "merge")


@pytest.fixture(scope="module")
def decode_side(record: RigRecorder) -> Recording:
    return record(RELEASE, "disagg-decode", 1, "--requests", "40")


@pytest.fixture(scope="module")
def prefill_side(record: RigRecorder) -> Recording:
    return record(RELEASE, "disagg-prefill", 1, "--requests", "40")


def lifted(recording: Recording) -> dict[Q, SeriesDiff]:
    with release(RELEASE) as source:
        return against_observed(recording, compiled(source))


def ruled(recording: Recording) -> dict[Q, SeriesDiff]:
    columns = Columns(recording)
    found = diff(recording, observed(columns), Toggles(columns)(fixes_of(RELEASE)))
    return {difference.quantity: difference for difference in found}


def test_books_of_the_decode_side_begin_when_a_prompt_is_handed_over(
    decode_side: Recording,
) -> None:
    assert set(decode_side.launches.mode.tolist()) == {Mode.DECODE}  # it never computes a prompt
    assert (decode_side.extend_rows.output_len > 0).all()  # the first token arrived with the prompt
    reached = exercised(decode_side)
    assert all(reached[branch] for branch in REACHED)
    found = lifted(decode_side)
    for quantity, difference in found.items():
        assert not difference.differs.any(), quantity
        if quantity not in ABSENT:
            assert difference.num_compared == len(difference.old.cells) > 0, quantity
    rules = ruled(decode_side)
    assert not any(difference.differs.any() for difference in rules.values())
    for quantity in (Q.KV_COMMITTED_LEN, Q.SEQ_LENS_SUM, Q.SPEC_VERIFY_CT):
        assert rules[quantity].num_compared == found[quantity].num_compared
    columns = Columns(decode_side)
    states = {one.law.name: one.state for one in check(columns, observed(columns))}
    assert State.BROKEN not in states.values()
    assert states["commit"] is states["sums"] is states["stale"] is State.HOLDS


def test_a_decode_side_recorded_without_handovers_is_not_judged(decode_side: Recording) -> None:
    """A retract sets lengths to 0.

    If the event that restores them was not recorded, every path would look wrong.
    """
    sites = tuple(site for site in decode_side.run.sites if site.name != "prebuilt")
    blind = replace(decode_side, run=replace(decode_side.run, sites=sites))
    for judge in (lifted, ruled):
        with pytest.raises(NoVerdictError, match="prepare_for_prebuilt"):
            judge(blind)


def test_after_a_gap_the_verify_count_is_not_captured(decode_side: Recording) -> None:
    """A request with one output may have been retracted with a result in flight.

    Up to 0.5.11 such a result counts.
    """
    size = len(decode_side.events.kind)
    cut = without(decode_side, size // 3, size // 3 + 5)
    for found in (lifted(cut), ruled(cut)):
        assert not any(difference.differs.any() for difference in found.values())
        assert found[Q.SPEC_VERIFY_CT].num_compared == 0
        assert found[Q.KV_COMMITTED_LEN].num_compared > 100


def test_the_prefill_side_decides_no_finish(prefill_side: Recording) -> None:
    """It ends a request when its KV has been sent, whatever the token limit says."""
    assert set(prefill_side.launches.mode.tolist()) == {Mode.EXTEND}
    assert exercised(prefill_side)["chunked-prefill"]
    assert not len(prefill_side.finishes.qid) and len(prefill_side.releases.qid) == 40
    found = lifted(prefill_side)
    assert not any(difference.differs.any() for difference in found.values())
    assert not len(found[Q.FINISH].old.cells) and not len(found[Q.KV_COMMITTED_LEN].old.cells)
    for quantity in (Q.RELEASED_LEN, Q.KV_ALLOCATED_LEN, Q.SEQ_LENS_SUM):
        assert found[quantity].num_compared == len(found[quantity].old.cells) >= 40
