"""The phrase that explains why two paths differ, on recordings made to show each fix."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from lifting import bundled_recording
from specdiff.recorders.schema import NONE32, NONE64
from specdiff.replay import spec
from specdiff.replay.cause import cause
from specdiff.replay.columns.shared import Columns
from specdiff.replay.diff import diff
from specdiff.replay.explain import Toggles
from specdiff.replay.observed import observed
from specdiff.replay.quantity import Quantity
from specdiff.replay.verdict import ByFix, ledger_of, replay, value_of

COMMITTED, SETTLED = Quantity.KV_COMMITTED_LEN, Quantity.KV_COMMITTED_LEN_SETTLED
CLAIMED = "slots claimed at prepare: +0 under observed, +1 under fixed"
STALE = "after merge, observed is 16 (stale), fixed is None; true sum: 20"
BOTH = (
    "start_len 12 ignored under old: 12 rows too many; "
    "3 rows after the stop under old (3 tokens of overshoot)"
)
UNASKED = "rows collected under observed only, for a request that did not ask for them"

SHOWN = [
    ("0.5.10-stale-stop", "observed", COMMITTED, {22651}, CLAIMED),
    (
        "0.5.11-stale-stop",
        "observed",
        COMMITTED,
        {23456},
        "stale result of a finished request: +3 under observed, -1 under fixed",
    ),
    (
        "0.5.11-stale-retract",
        "observed",
        SETTLED,
        {23456},
        "stale result of a retracted request: +2 under observed, +0 under fixed",
    ),
    ("0.5.11-experts-not-requested", "observed", Quantity.ROUTED_EXPERTS, {24851}, UNASKED),
    (
        "0.5.12-experts-start-len",
        "old",
        Quantity.ROUTED_EXPERTS,
        {24851},
        "start_len 1 ignored under old: 1 row too many",
    ),
    ("0.5.12-experts-overshoot", "old", Quantity.ROUTED_EXPERTS, {24851, 26126}, BOTH),
    (
        "0.5.12-merge-filter",
        "observed",
        Quantity.SEQ_LENS_SUM,
        {25818},
        f"{STALE}; 13 of the 20 differing sums are known to be stale under observed",
    ),
    (
        "0.5.12-indexer-topk",
        "observed",
        Quantity.INDEXER_TOPK,
        {26126},
        "3 rows after the stop under observed (3 tokens of overshoot)",
    ),
    (  # an earlier difference is explained only together with #24851
        "0.5.14-dflash",
        "old",
        Quantity.ROUTED_EXPERTS,
        {26126},
        "1 row after the stop under old (1 token of overshoot)",
    ),
]


@pytest.mark.parametrize(("name", "old", "quantity", "fixes", "phrase"), SHOWN)
def test_a_fix_is_shown_at_a_difference_that_it_explains_alone(
    name: str, old: str, quantity: Quantity, fixes: set[int], phrase: str
) -> None:
    """If it explains no difference alone, one that it explains with others is shown."""
    shown = by_fix(name, old, quantity, min(fixes)).first
    assert shown is not None
    assert (shown.cause, [set(one) for one in shown.fixes]) == (phrase, [fixes])


def by_fix(name: str, old: str, quantity: Quantity, number: int) -> ByFix:
    paths = spec.parse(old), spec.parse("fixed")
    (result,) = replay(bundled_recording(name), *paths, [quantity]).quantities
    return next(fix for fix in result.by_fix if fix.number == number)


def test_a_cause_says_if_the_values_already_differed_before() -> None:
    """At a result that changes nothing under either path."""
    recording = bundled_recording("0.5.16-adaptive-random")
    paths = spec.parse("observed"), spec.parse("sglang==0.5.11")
    (result,) = replay(recording, *paths, [Quantity.KV_COMMITTED_LEN]).quantities
    causes = [one.first.cause for one in result.by_fix if one.first is not None]
    assert (
        "stale result of a finished request: +0 under both; the values already differed before"
        in causes
    )


def test_a_cause_blames_the_stop_only_for_rows_of_a_request_that_ran_past_its_stop() -> None:
    """As if the server had returned one row too many to everyone who asked."""
    recording = bundled_recording("0.5.23-new-weights")
    finishes = recording.finishes
    one_more = dataclasses.replace(finishes, experts_rows=finishes.experts_rows + 1)
    columns = Columns(dataclasses.replace(recording, finishes=one_more))
    paths = spec.parse("observed"), spec.parse("fixed")
    old, new = (ledger_of(columns, Toggles(columns), path) for path in paths)
    (made,) = (
        one for one in diff(columns.recording, old, new) if one.quantity is Quantity.ROUTED_EXPERTS
    )
    past = (finishes.finished_len != NONE64) & (finishes.output_len > finishes.finished_len)
    said = set()
    for cell in torch.nonzero(made.differs).flatten().tolist():
        row = int(made.old.cells.row[cell])
        over = int(finishes.output_len[row]) - int(finishes.finished_len[row])
        stop = f"1 row after the stop under observed ({over} token{'s'[: over - 1]} of overshoot)"
        none = "1 row more under observed, and there is no output after a stop"
        assert cause(columns, made, cell) == (stop if past[row] else none)
        said.add(bool(past[row]))
    assert said == {True, False}


def test_stale_sums_are_counted_among_those_that_differ() -> None:
    """Other sums are stale too, but the same on either path."""
    recording, old, new = (
        bundled_recording("0.5.14-dflash"),
        spec.parse("observed"),
        spec.parse("old"),
    )
    (result,) = replay(recording, old, new, [Quantity.SEQ_LENS_SUM]).quantities
    assert result.first is not None
    _, _, *counted = result.first.cause.split("; ")
    assert counted == [
        "142 of the 211 differing sums are known to be stale under observed",
        "27 of the 211 differing sums are known to be stale under old",
    ]


def test_the_cause_of_a_counter_names_both_paths() -> None:
    """A counter has no value before the event, so there is only the difference between the paths."""
    recording = bundled_recording("0.5.11-stale-stop")
    old, new = spec.parse("old"), spec.parse("fixed")
    for paths in ((old, new), (new, old)):
        (result,) = replay(recording, *paths, [Quantity.SPEC_VERIFY_CT]).quantities
        assert result.first is not None
        assert (
            result.first.cause
            == "stale result of a finished request: 1 more under old than under fixed"
        )


def test_a_result_is_not_blamed_for_a_counter_that_already_differed() -> None:
    """As if the server had counted one draft too many in the first verify of each request."""
    recording = bundled_recording("0.5.11-stale-stop")
    counted = recording.result_rows.spec_accepted_drafts
    one_more = np.where(counted == NONE32, counted, counted + 1)
    rows = dataclasses.replace(recording.result_rows, spec_accepted_drafts=one_more)
    columns = Columns(dataclasses.replace(recording, result_rows=rows))
    old, new = (
        ledger_of(columns, Toggles(columns), spec.parse(path)) for path in ("observed", "fixed")
    )
    (made,) = (
        one
        for one in diff(columns.recording, old, new)
        if one.quantity is Quantity.SPEC_ACCEPTED_DRAFTS
    )
    (mine,) = (one for one, rid in enumerate(recording.rids) if rid == "stop-1-0")
    stale = "stale result of a finished request: 4 more under observed than under fixed"
    stale += "; the values already differed before, by 1"
    cells = torch.nonzero(made.differs & (made.old.cells.qid == mine)).flatten().tolist()
    assert [cause(columns, made, cell) for cell in cells] == [
        "result of a running request: 1 more under observed than under fixed",
        "result of a running request: the values already differed before",
        stale,
    ]


@pytest.mark.parametrize("name", ["0.5.10-stale-stop", "0.5.12-experts-overshoot", "0.5.23-mixed"])
def test_a_divergence_of_two_sets_of_fixes_says_which_one_the_server_agrees_with(name: str) -> None:
    """If the server's own books are one of the two paths, nothing needs to be said."""
    recording, seen = bundled_recording(name), set[str | None]()
    server = observed(Columns(recording))
    pairs = [("old", "fixed"), ("fixed", "old")]
    for one in ("old", "fixed"):
        pairs += [("observed", one), (one, "observed")]
    for old, new in pairs:
        made = replay(recording, spec.parse(old), spec.parse(new))
        for result in made.quantities:
            first, series = result.first, server[result.quantity]
            if first is None:
                continue
            here = (series.cells.event == first.event) & series.captured
            recorded = {str(value_of(series, int(cell))) for cell in torch.nonzero(here)}
            agrees = {"old": {str(first.old)}, "fixed": {str(first.new)}}
            if "observed" in (old, new):
                assert first.recorded_as is None
            elif first.recorded_as is not None:
                assert agrees[first.recorded_as] <= recorded
            else:
                assert not recorded & {str(first.old), str(first.new)}
            seen.add(first.recorded_as)
    assert seen == {None, "old", "fixed"}
