"""The law `weights` on a server that got new weights: by a plain loop, falsified, with gaps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gaps import without
from lifting import bundled_recording
from specdiff.cli.inputs import bundled
from specdiff.cli.main import DIFFERS, run
from specdiff.recorders.pseudonyms import pseudonymous
from specdiff.recorders.recording import Recording, columns
from specdiff.recorders.schema import NONE32, NONE64, ControlAct, Events, Kind, Spans
from specdiff.replay import spec
from specdiff.replay.columns.shared import Columns
from specdiff.replay.laws.check_one import check_law, law_of
from specdiff.replay.laws.law import Places, State
from specdiff.replay.laws.weights import weights
from specdiff.replay.observed import observed
from specdiff.replay.timeline import timelines


@pytest.fixture(scope="module")
def recording() -> Recording:
    return bundled_recording("0.5.23-new-weights")


def _places(recording: Recording, kind: Kind = Kind.WEIGHT_SPAN) -> Places:
    """Return the law's values at the spans, or at the messages that the spans follow."""
    columns = Columns(recording)
    places = weights(columns, observed(columns))
    return places.some(torch.from_numpy(recording.events.kind)[places.event] == kind)


def _by_hand(recording: Recording) -> list[int]:
    """Return for each span how many tokens other weights computed, counted token by token."""
    serving, by_launch = 0, dict[int, int]()  # `default`
    more = set[int]()  # requests whose prompt is not complete
    unready = dict[int, set[int]]()  # launch -> requests that get no token from it
    made: dict[int, list[int]] = {qid: [] for qid in range(len(recording.rids))}
    wrong = []
    for kind, ref in zip(recording.events.kind, recording.events.ref, strict=True):
        if kind == Kind.CONTROL and recording.controls.act[ref] == ControlAct.WEIGHTS:
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


def test_a_shifted_boundary_breaks_the_law(recording: Recording) -> None:
    """Move a boundary by one token in a request whose spans were all right."""
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


@pytest.mark.parametrize("column", ["start", "end"])
@pytest.mark.parametrize("by", [-1, 1])
def test_a_span_that_misses_a_token_or_has_one_too_many_breaks_the_law(
    recording: Recording, column: str, by: int
) -> None:
    """At the first, a middle and the last span of a request that has at least three."""
    whole = _places(recording, Kind.SENT)
    sents, spans = recording.sents, recording.spans
    assert len(whole.found) >= len(sents.qid) - 1 and not whole.found.any()
    (qid, *_) = np.flatnonzero(np.bincount(spans.qid) > 2)
    for row in np.flatnonzero(spans.qid == qid):
        values = getattr(spans, column).copy()
        values[row] += by
        bent = dataclasses.replace(spans, **{column: values})
        found = _places(dataclasses.replace(recording, spans=bent), Kind.SENT)
        assert found.qid[~found.holds].tolist() == [qid] and int(found.found.sum()) == 1


def test_a_request_without_any_span_breaks_the_law(recording: Recording) -> None:
    """As if the server forgot to report it. No gap explains the missing spans."""
    event, spans = recording.event_of(Kind.WEIGHT_SPAN), recording.spans
    qid = int(spans.qid[0])
    silent = _unsaid(recording, event[spans.qid == qid])
    found = _places(silent, Kind.SENT)
    told = recording.sents.completion_tokens[recording.sents.qid == qid]
    assert found.qid[~found.holds].tolist() == [qid] and [int(found.found.sum())] == told.tolist()


def _unsaid(recording: Recording, events: NDArray[np.int64]) -> Recording:
    kept = np.ones(len(recording.events.kind), dtype=bool)
    kept[events] = False
    spine = {name: values[kept] for name, values in columns(recording.events)}
    mine = kept[recording.event_of(Kind.WEIGHT_SPAN)]
    spine["ref"][spine["kind"] == Kind.WEIGHT_SPAN] = np.arange(mine.sum())
    spans = {name: values[mine] for name, values in columns(recording.spans)}
    return dataclasses.replace(recording, events=Events(**spine), spans=Spans(**spans))


def test_a_span_that_was_lost_is_not_missed(recording: Recording) -> None:
    """There is a gap in its place, or the recording ends there."""
    last = int(recording.event_of(Kind.WEIGHT_SPAN)[-1])
    for cut in (
        *(without(recording, at, at + 1) for at in recording.event_of(Kind.WEIGHT_SPAN)[:40]),
        _unsaid(recording, np.arange(last, len(recording.events.kind))),
    ):
        found = _places(cut, Kind.SENT)
        assert not found.found.any() and len(found.found) > 10


def test_spans_whose_message_was_lost_are_not_judged(recording: Recording) -> None:
    """In this recording no message to a client is left."""
    first, second = recording.event_of(Kind.SENT)[:2]
    only = without(without(recording, int(second), len(recording.events.kind)), first, first + 1)
    assert len(only.spans.qid) and not len(only.sents.qid)
    columns_of = Columns(only)
    assert not len(weights(columns_of, observed(columns_of)).event)


def test_without_the_weights_hook_no_span_is_judged(recording: Recording) -> None:
    """As in a server where the hooked function has another name."""
    sites = tuple(
        dataclasses.replace(site, attached=site.attached and site.name != "weights")
        for site in recording.run.sites
    )
    blind = dataclasses.replace(recording, run=dataclasses.replace(recording.run, sites=sites))
    assert not len(_places(blind).found)
    assert len(_places(blind, Kind.SENT).found) == len(_places(recording, Kind.SENT).found)


@pytest.mark.parametrize("begins", [40, 150, 250, 400])
def test_a_recording_that_begins_late_gives_no_other_values(
    recording: Recording, begins: int
) -> None:
    """A ring does so. Until the first change, nobody knows which weights serve."""
    left = _told(_places(without(recording, 0, begins)))
    moved = {event + begins - 1: found for event, found in left.items()}
    assert moved.items() <= _told(_places(recording)).items()
    assert len(left) > 10


def test_after_a_lost_result_only_whole_spans_are_judged(recording: Recording) -> None:
    """If the result of a token was lost, nobody knows which weights computed it."""
    lost = int(recording.event_of(Kind.RESULT)[40])
    right, left = _told(_places(recording)), _told(_places(without(recording, lost, lost + 1)))
    assert left.items() <= right.items()  # the gap replaces the event, so the numbers stay
    assert 10 < len(left) < len(right)


def test_after_a_gap_the_serving_weights_are_known_from_the_next_change(
    recording: Recording,
) -> None:
    """The gap may hide a change. The next change says which weights served before it."""
    lost = int(recording.event_of(Kind.CONTROL)[recording.controls.act == ControlAct.WEIGHTS][4])
    right, left = _told(_places(recording)), _told(_places(without(recording, lost, lost + 1)))
    assert left.items() <= right.items()  # the gap replaces the event, so the numbers stay
    assert len(right) > len(left) > len(right) // 2


def test_if_every_change_was_lost_nothing_is_judged_after_the_first(
    recording: Recording,
) -> None:
    """Even though the run description names all the weights."""
    first, cut = int(recording.event_of(Kind.CONTROL)[0]), recording
    while len(at := cut.event_of(Kind.CONTROL)):
        cut = without(cut, int(at[0]), int(at[0]) + 1)
    assert all(event < first for event in _told(_places(cut)))


def _told(places: Places) -> dict[int, int]:
    return dict(zip(places.event.tolist(), places.found.tolist(), strict=True))


def test_if_launches_are_unknown_nothing_is_judged(recording: Recording) -> None:
    nothing = np.full_like(recording.results.launch, NONE64)
    results = dataclasses.replace(recording.results, launch=nothing)
    assert not len(_places(dataclasses.replace(recording, results=results)).found)


def test_show_lists_weight_changes_and_what_the_client_was_told(recording: Recording) -> None:
    (timeline,) = timelines(recording, "r1-6", [spec.parse("observed")])
    said = [entry.detail for entry in timeline.entries if entry.kind is Kind.CONTROL]
    assert "generation is paused; running requests stay in the batch" in said
    assert "weights change from policy-2 to policy-3" in said
    told = [entry.detail for entry in timeline.entries if entry.kind is Kind.WEIGHT_SPAN]
    assert told == [
        "weights policy-2 are reported for tokens [0, 7)",
        "weights policy-3 are reported for tokens [7, 9); 2 of these tokens were computed by other weights",
    ]
    assert timeline.entries[0].kind is Kind.ARRIVE  # earlier events of others are not listed


def test_names_of_weights_that_reveal_something_are_redacted(recording: Recording) -> None:
    run = dataclasses.replace(recording.run, weight_versions=("default", "/ckpt/of-bob/7"))
    redacted = pseudonymous(dataclasses.replace(recording, run=run)).run.weight_versions
    assert redacted[0] == "default" and redacted[1].startswith("redacted-")


def test_check_names_the_counted_quantity(capsys: pytest.CaptureFixture[str]) -> None:
    """The quantity must be named: "2, expected 0" alone could be anything."""
    assert run(["check", str(bundled() / "0.5.23-new-weights.h5")]) == DIFFERS
    assert "request r1-6: mislabelled_tokens = 2, expected 0 " in capsys.readouterr().out


def test_without_the_weights_hook_the_law_is_not_exercised(
    recording: Recording,
) -> None:
    """As with a commit that renamed the function.

    What is left to check would hold and look like a pass.
    """

    def state(recording: Recording) -> tuple[State, str | None]:
        found = check_law(law_of("weights"), recording, spec.Observed())
        return found.state, found.why_not_exercised

    assert state(recording) == (State.BROKEN, None)
    sites = [
        dataclasses.replace(site, attached=site.name != "weights") for site in recording.run.sites
    ]
    run_of_it = dataclasses.replace(recording.run, sites=tuple(sites))
    unhooked = dataclasses.replace(recording, run=run_of_it)
    assert state(unhooked) == (State.NOT_EXERCISED, "not hooked in this sglang: weights")
