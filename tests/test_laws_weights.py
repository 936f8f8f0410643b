"""The law of weights, on a recorded server that was given new ones: against a plain loop, falsified, and behind a gap."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gaps import without
from lifting import bundled_recording
from specdiff.cli.inputs import bundled
from specdiff.cli.main import DIFFERS, run
from specdiff.recorders.pseudonyms import pseudonymous
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import NONE32, NONE64, Act, Kind
from specdiff.replay import spec
from specdiff.replay.columns.shared import Columns
from specdiff.replay.laws.law import Places
from specdiff.replay.laws.weights import weights
from specdiff.replay.observed import observed
from specdiff.replay.timeline import lives


@pytest.fixture(scope="module")
def recording() -> Recording:
    return bundled_recording("0.5.23-new-weights")


def _places(recording: Recording) -> Places:
    columns = Columns(recording)
    return weights(columns, observed(columns))


def _by_hand(recording: Recording) -> list[int]:
    """Per span, how many of its tokens others computed: one event after the other, token by token."""
    serving, by_launch = 0, dict[int, int]()  # `default`
    more = set[int]()  # whose prompt is not done
    unready = dict[int, set[int]]()  # by launch, who gets no token of it
    made: dict[int, list[int]] = {qid: [] for qid in range(len(recording.rids))}
    wrong = []
    for kind, ref in zip(recording.events.kind, recording.events.ref, strict=True):
        if kind == Kind.CONTROL and recording.controls.act[ref] == Act.WEIGHTS:
            serving = int(recording.controls.weights[ref])
        elif kind == Kind.LAUNCH:
            launch = int(recording.launches.launch[ref])
            by_launch[launch], unready[launch] = serving, set(more)
        elif kind == Kind.EXTEND:
            rows = recording.extend_rows
            for row in np.flatnonzero(recording.owner(Kind.EXTEND) == ref):
                qid = int(rows.qid[row])
                (more.add if rows.chunked[row] else more.discard)(qid)
        elif kind == Kind.RESULT:
            results, launch = recording.result_rows, int(recording.results.launch[ref])
            for row in np.flatnonzero(recording.owner(Kind.RESULT) == ref):
                qid, stale = (
                    int(results.qid[row]),
                    results.finished[row] or results.is_retracted[row],
                )
                prefill = results.accept_len[row] == NONE32
                count = (
                    int(qid not in unready[launch]) if prefill else int(results.num_emitted[row])
                )
                made[qid] += [by_launch[launch]] * (0 if stale else count)
        elif kind == Kind.WEIGHT_SPAN:
            spans = recording.spans
            told = made[int(spans.qid[ref])][spans.start[ref] : spans.end[ref]]
            wrong.append(sum(by != spans.weights[ref] for by in told))
    return wrong


def test_the_law_counts_what_a_plain_loop_counts(recording: Recording) -> None:
    places = _places(recording)
    assert places.found.tolist() == _by_hand(recording)
    assert len(places.found) == len(recording.spans.qid) > 80
    assert 10 < int((~places.holds).sum()) < len(places.found) // 2


def test_a_boundary_that_is_off_breaks_it(recording: Recording) -> None:
    """One token later than it was told, in a request of which all was told rightly."""
    spans, right = recording.spans, _places(recording).holds.numpy()
    wrong = np.unique(spans.qid[~right])
    follows = np.flatnonzero((spans.qid[1:] == spans.qid[:-1]) & ~np.isin(spans.qid[1:], wrong))
    (row, *_) = follows
    start, end = spans.start.copy(), spans.end.copy()
    start[row + 1] += 1
    end[row] += 1
    changed = dataclasses.replace(spans, start=start, end=end)
    found = _places(dataclasses.replace(recording, spans=changed)).found.numpy()
    assert found[row] == 1 and found.sum() == sum(_by_hand(recording)) + 1


@pytest.mark.parametrize("begins", [40, 150, 250, 400])
def test_a_recording_that_begins_late_says_nothing_else(recording: Recording, begins: int) -> None:
    """As a ring does: which weights served then nobody says before they change."""
    left = _told(_places(without(recording, 0, begins)))
    moved = {event + begins - 1: found for event, found in left.items()}
    assert moved.items() <= _told(_places(recording)).items()
    assert len(left) > 10


def test_behind_a_lost_result_only_whole_spans_are_judged(recording: Recording) -> None:
    """Of a token whose result was lost nobody knows who made it."""
    lost = int(recording.event_of(Kind.RESULT)[40])
    right, left = _told(_places(recording)), _told(_places(without(recording, lost, lost + 1)))
    assert left.items() <= right.items()  # a gap stands where the event was
    assert 10 < len(left) < len(right)


def test_behind_a_gap_it_takes_a_change_to_tell_which_weights_serve(recording: Recording) -> None:
    """The gap may hide one: the next change says which served before it."""
    lost = int(recording.event_of(Kind.CONTROL)[recording.controls.act == Act.WEIGHTS][4])
    right, left = _told(_places(recording)), _told(_places(without(recording, lost, lost + 1)))
    assert left.items() <= right.items()  # a gap stands where the event was
    assert len(right) > len(left) > len(right) // 2


def test_where_every_change_was_cut_out_nothing_is_said_behind_the_first(
    recording: Recording,
) -> None:
    """The run names them all the same."""
    first, cut = int(recording.event_of(Kind.CONTROL)[0]), recording
    while len(at := cut.event_of(Kind.CONTROL)):
        cut = without(cut, int(at[0]), int(at[0]) + 1)
    assert all(event < first for event in _told(_places(cut)))


def _told(places: Places) -> dict[int, int]:
    return dict(zip(places.event.tolist(), places.found.tolist(), strict=True))


def test_where_nothing_is_known_of_a_launch_nothing_is_said(recording: Recording) -> None:
    nothing = np.full_like(recording.results.launch, NONE64)
    results = dataclasses.replace(recording.results, launch=nothing)
    assert not len(_places(dataclasses.replace(recording, results=results)).found)


def test_show_says_what_everybody_was_told(recording: Recording) -> None:
    (life,) = lives(recording, "r1-6", [spec.parse("observed")])
    said = [moment.detail for moment in life.moments if moment.kind is Kind.CONTROL]
    assert "generation is paused, and everybody stays where they are" in said
    assert "weights policy-3 serve, no longer policy-2" in said
    told = [moment.detail for moment in life.moments if moment.kind is Kind.WEIGHT_SPAN]
    assert told == [
        "tokens [0, 7) are said to be of weights policy-2",
        "tokens [7, 9) are said to be of weights policy-3; 2 of these tokens other weights computed",
    ]
    assert life.moments[0].kind is Kind.ARRIVE  # what others were told before is not of this life


def test_names_of_weights_that_tell_something_are_redacted(recording: Recording) -> None:
    run = dataclasses.replace(recording.run, weight_versions=("default", "/ckpt/of-bob/7"))
    redacted = pseudonymous(dataclasses.replace(recording, run=run)).run.weight_versions
    assert redacted[0] == "default" and redacted[1].startswith("redacted-")


def test_check_says_what_it_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """A bare "2, expected 0" could be anything."""
    assert run(["check", str(bundled() / "0.5.23-new-weights.h5")]) == DIFFERS
    assert "request r1-6: 2 tokens of other weights, expected 0 " in capsys.readouterr().out
