"""Chunks, every kind of finish, and grammars, recorded live. Lifted and observed agree."""

from __future__ import annotations

import numpy as np
import pytest

from children import on_demand
from lifting import Changed, against_observed, compiled, release
from recorded import RigRecorder
from specdiff.recorders.schema import NONE32, Reason
from specdiff.replay.columns.shared import Columns
from specdiff.replay.diff import diff
from specdiff.replay.exercised import exercised
from specdiff.replay.explain import Toggles
from specdiff.replay.laws.check import check
from specdiff.replay.laws.law import State
from specdiff.replay.observed import observed
from specdiff.replay.quantity import Quantity as Q
from test_fidelity import fixes_of

REACHED = {
    "chunked": (
        "chunked-prefill",
        "prefill-between-decodes",
        "batch-emptied",
        "retract",
        "re-prefill",
        "rows-overshoot",
    ),
    "finish-order": ("stop-mid-run", "length-overshoot", "finish-stop-token", "rows-overshoot"),
    "stop-strings": ("finish-stop-string", "finish-stop-token", "finish-length"),
    "grammar": ("grammar-done", "finish-stop-token", "finish-length"),
}
"""Scenario -> the branches that it must reach to prove anything."""


@pytest.mark.parametrize("version", [*on_demand("0.5.12"), "0.5.23"])
@pytest.mark.parametrize("scenario", REACHED)
def test_the_lifted_release_and_its_fixes_equal_observed(
    version: str, scenario: str, record: RigRecorder
) -> None:
    recording = record(version, scenario, 1)
    reached = exercised(recording)
    assert all(reached[branch] for branch in REACHED[scenario])
    with release(version) as source:
        found = against_observed(recording, compiled(source))
    for quantity, difference in found.items():
        assert not difference.differs.any(), quantity
        if quantity not in (Q.INDEXER_TOPK, Q.SESSION_COMMITTED, Q.FINISH):  # not all captured here
            assert difference.num_compared == len(difference.old.cells) > 0, quantity
    columns = Columns(recording)
    rules = Toggles(columns)(fixes_of(version))
    assert not any(one.differs.any() for one in diff(recording, observed(columns), rules))


@pytest.mark.parametrize("scenario", REACHED)
def test_a_current_release_breaks_no_law(scenario: str, record: RigRecorder) -> None:
    columns = Columns(record("0.5.23", scenario, 1))
    states = {one.law.name: one.state for one in check(columns, observed(columns))}
    assert State.BROKEN not in states.values()
    assert states["commit"] is states["rows"] is states["trainer"] is State.HOLDS


@pytest.mark.parametrize(
    ("version", "wins"), [("0.5.12", Reason.LENGTH), ("0.5.23", Reason.STOP_TOKEN)]
)
def test_the_release_decides_whether_a_stop_or_the_limit_wins_in_one_run(
    version: str, wins: Reason, record: RigRecorder
) -> None:
    """Positions 5 to 8 were accepted in one run, the limit is 8, and position 6 is the stop."""
    recording = record(version, "finish-order", 1)
    rids = recording.rids
    (finish,) = np.flatnonzero([rids[qid] == "order-1-1" for qid in recording.finishes.qid])
    assert recording.finishes.reason[finish] == wins
    assert recording.finishes.output_len[finish] == 9
    assert recording.finishes.finished_len[finish] == (8 if wins is Reason.LENGTH else 7)


def test_only_finishes_that_a_stop_string_may_decide_are_not_captured(record: RigRecorder) -> None:
    recording = record("0.5.23", "stop-strings", 1)
    with release("0.5.23") as source:
        finish = against_observed(recording, compiled(source))[Q.FINISH]
    lost = finish.old.cells.qid[finish.not_captured]
    assert len(lost) and all(
        '"num_strings": 0, "num_regexes": 0' not in recording.details[q] for q in lost
    )


@pytest.mark.parametrize(("version", "cut"), [("0.5.12", False), ("0.5.23", True)])
def test_a_grammar_cuts_the_run_from_0_5_14_on(
    version: str, cut: bool, record: RigRecorder
) -> None:
    recording = record(version, "grammar", 1)
    rows = recording.result_rows
    ran_on = (rows.accept_len != NONE32) & (rows.num_emitted < rows.accept_len)
    assert ran_on.any() == cut
    assert (rows.grammar_done[ran_on] == 1).all()
    assert recording.requests.has_grammar.any() and not recording.requests.has_grammar.all()


@pytest.mark.parametrize(
    ("version", "algorithm", "waits"),
    [
        ("0.5.23", "EAGLE", False),
        *on_demand(
            ("0.5.16", "EAGLE", True), ("0.5.17", "EAGLE", False), ("0.5.17", "NGRAM", True)
        ),
    ],
)
def test_a_grammar_makes_a_batch_wait_up_to_0_5_16_and_with_ngram(
    version: str, algorithm: str, waits: bool, record: RigRecorder
) -> None:
    flags = () if algorithm == "EAGLE" else ("--algorithm", algorithm)
    recording = record(version, "grammar", 1, *flags)
    assert recording.run.overlap and recording.requests.has_grammar.any()
    assert (exercised(recording)["overlap-skipped"] > 5) == waits


@pytest.mark.parametrize(("version", "scenario"), [("0.5.12", "grammar"), ("0.5.23", "chunked")])
def test_a_batch_may_wait_for_the_result_before_it(
    version: str, scenario: str, record: RigRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overlap is off for a batch with a grammar, or after another prefill by a setting."""
    monkeypatch.setenv("SGLANG_DISABLE_CONSECUTIVE_PREFILL_OVERLAP", "1")
    recording = record(version, scenario, 7)
    assert recording.run.overlap and exercised(recording)["overlap-skipped"] > 5
    with release(version) as source:
        found = against_observed(recording, compiled(source))
    columns = Columns(recording)
    rules = diff(recording, observed(columns), Toggles(columns)(fixes_of(version)))
    for difference in (*found.values(), *rules):
        assert not difference.differs.any(), difference.quantity
    assert found[Q.SEQ_LENS_SUM].num_compared == len(found[Q.SEQ_LENS_SUM].old.cells) > 50


BROKEN = {
    "a grammar that is complete ends nothing": (
        "grammar",
        "srt/managers/scheduler_components/batch_result_processor.py",
        "_accept_grammar_tokens",
        "break",
        "pass",
        {Q.KV_COMMITTED_LEN, Q.KV_COMMITTED_LEN_SETTLED},
    ),
    "a complete grammar does not finish": (
        "grammar",
        "srt/managers/schedule_batch.py",
        "update_finish_state",
        "self.grammar is not None and",
        "False and",
        {Q.FINISH},
    ),
    "eos is not a stop": (
        "finish-order",
        "srt/managers/schedule_batch.py",
        "_check_token_based_finish",
        "token_id in self.eos_token_ids",
        "False",
        {Q.FINISH},
    ),
    "a limit of 8 is asked before the stop": (
        "finish-order",
        "srt/managers/schedule_batch.py",
        "update_finish_state",
        "if self._check_token_based_finish(new_accepted_tokens):",
        "if not self.output_ids[8:] and self._check_token_based_finish(new_accepted_tokens):",
        {Q.FINISH},
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_copy_of_the_release_differs_from_observed(what: str, record: RigRecorder) -> None:
    scenario, path, function, old, new, shows = BROKEN[what]
    with release("0.5.23") as source:
        broken = compiled(Changed(source, path, function, old, new))
    found = against_observed(record("0.5.23", scenario, 1), broken)
    assert {q for q, difference in found.items() if difference.differs.any()} >= shows
