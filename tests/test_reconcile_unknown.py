"""`specdiff reconcile` compares nothing that a recording does not hold, or no longer holds, and says why."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from gaps import ended, without, without_start
from served_answers import (
    NEW,
    OLD,
    RID,
    answer,
    answers,
    compared,
    differing,
    held,
    of,
    path,
    stream,
)
from specdiff.cli.main import SAME, run
from specdiff.recorders import hdf5
from specdiff.recorders.derived import Derived
from specdiff.recorders.schema import NONE64, Kind
from specdiff.replay.reconcile.facts import Fact
from specdiff.replay.reconcile.recorded_facts import NO_END


def test_missed_messages_do_not_hide_weight_spans(tmp_path: Path) -> None:
    """If recording began while the request ran, some messages were missed. Its spans come with its end."""
    recording = hdf5.load(path(NEW))
    short = np.maximum(recording.sents.num_output_ids - 1, 0)
    sents = dataclasses.replace(recording.sents, num_output_ids=short)
    found = held(tmp_path, answer(NEW), recording=dataclasses.replace(recording, sents=sents))
    assert Fact.WEIGHT_VERSIONS in compared(found)


def test_recorded_spans_that_leave_a_token_out_are_not_compared_with_the_reason(
    tmp_path: Path,
) -> None:
    recording = hdf5.load(path(NEW))
    (row,) = np.flatnonzero(recording.spans.qid == recording.rids.index(RID))
    end = recording.spans.end.copy()
    end[row] -= 1
    short = dataclasses.replace(recording, spans=dataclasses.replace(recording.spans, end=end))
    found = of(held(tmp_path, answer(NEW), recording=short), Fact.WEIGHT_VERSIONS)
    why = "the recorded spans do not cover each token exactly once"
    assert found.num_compared == 0 and found.not_compared == {why: 1}


def test_facts_that_an_older_format_lacks_are_not_compared(tmp_path: Path) -> None:
    """Such a file has the finish, which says what is due, but not what was sent."""
    recording = hdf5.load(path(NEW))
    sents = recording.sents
    none = type(sents)(*(getattr(sents, field.name)[:0] for field in dataclasses.fields(sents)))
    events = recording.events
    other = events.kind != Kind.SENT
    spine = type(events)(*(getattr(events, f.name)[other] for f in dataclasses.fields(events)))
    old = dataclasses.replace(recording, sents=none, events=spine, version=2)
    found = held(tmp_path, *answers(NEW), recording=old)
    assert not differing(found)
    assert of(found, Fact.LOGPROBS).not_compared["not in format version 2"] > 10
    assert of(found, Fact.OUTPUT_IDS).num_compared > 25
    rows = of(found, Fact.EXPERTS_ROWS).num_compared
    asked = old.finishes.return_routed_experts == 1
    assert 0 < rows == of(held(tmp_path, *answers(NEW)), Fact.EXPERTS_ROWS).num_compared
    assert rows <= int(asked.sum()) < len(asked)


def test_of_a_message_that_was_not_recorded_only_what_the_finish_says_is_compared(
    tmp_path: Path,
) -> None:
    """A gap has lost the message to the client, but not the weight spans that came with it."""
    recording = hdf5.load(path(NEW))
    qid = recording.rids.index(RID)
    event = int(recording.event_of(Kind.SENT)[recording.sents.qid == qid][0])
    assert (recording.spans.qid == qid).any()
    found = held(tmp_path, answer(NEW), recording=without(recording, event, event + 1))
    assert not differing(found)
    kept = {Fact.TOKEN_IDS, Fact.SPEC_VERIFY_CT, Fact.HISTOGRAM_STEPS, Fact.EXPERTS, Fact.INDEXER}
    lost = {Fact.FINISH_REASON, Fact.COMPLETION_TOKENS, Fact.OUTPUT_IDS, Fact.EXPERTS_ROWS}
    assert kept <= compared(found)
    for fact in (*lost, Fact.PROMPT_TOKENS, Fact.LOGPROBS, Fact.WEIGHT_VERSIONS):
        assert of(found, fact).not_compared == {NO_END: 1}


@pytest.mark.parametrize("shape", [(1, 4), (4, 1)])
def test_rows_are_counted_for_any_number_of_layers(shape: tuple[int, int], tmp_path: Path) -> None:
    recording = hdf5.load(path(NEW))
    other = dataclasses.replace(recording, experts=recording.experts.reshape(-1, *shape))
    assert held(tmp_path, *answers(NEW), recording=other) == held(tmp_path, *answers(NEW))


@pytest.mark.parametrize(
    ("how", "lacks"),
    [
        ("no-tokens", {Fact.TOKEN_IDS}),
        ("redact", {Fact.TOKEN_IDS, Fact.EXPERTS, Fact.INDEXER}),
        ("shrink", {Fact.TOKEN_IDS, Fact.EXPERTS, Fact.INDEXER}),
    ],
)
def test_tokens_and_rows_that_were_replaced_are_not_compared(
    how: str, lacks: set[Fact], tmp_path: Path
) -> None:
    whole = hdf5.load(path(NEW))
    replaced = dataclasses.replace(
        whole,
        tokens=np.zeros_like(whole.tokens),
        experts=whole.experts if how == "no-tokens" else np.zeros_like(whole.experts),
        indexer=whole.indexer if how == "no-tokens" else np.zeros_like(whole.indexer),
        derived=(Derived(how, "0" * 64, "as the recorder or the command does", 0, True),),
    )
    told = answers(NEW)
    before, found = held(tmp_path, *told), held(tmp_path, *told, recording=replaced)
    assert compared(before) - compared(found) == lacks & compared(before) and lacks & compared(
        before
    )
    assert differing(found) == differing(before)
    assert f"replaced by {how}" in str(of(found, Fact.TOKEN_IDS))


def test_tokens_that_shrink_kept_are_compared(tmp_path: Path) -> None:
    """Its rows are left out, which is not reported as replaced."""
    small = tmp_path / "small.h5"
    options = ["--law", "trainer", "--keep-tokens", "-o", str(small)]
    assert run(["shrink", str(path(OLD)), *options]) == SAME
    kept = hdf5.load(small)
    told = answer(OLD, *kept.rids)
    found = held(tmp_path, told, recording=kept)
    assert of(found, Fact.TOKEN_IDS).num_compared == 1
    assert of(found, Fact.EXPERTS).not_compared == {"left out by shrink": 1}
    told["output_ids"][0] += 1
    assert Fact.TOKEN_IDS in differing(held(tmp_path, told, recording=kept))


def test_sums_over_messages_are_not_compared_across_a_gap(tmp_path: Path) -> None:
    recording = hdf5.load(path(NEW))
    qid = recording.rids.index(RID)
    results = np.flatnonzero(recording.result_rows.qid == qid)
    event = recording.event_of(Kind.RESULT)[recording.owner(Kind.RESULT)[results[1]]]
    cut = without(recording, int(event), int(event) + 1)
    found = held(tmp_path, answer(NEW), recording=cut)
    assert not differing(found)
    assert "a gap" in next(iter(of(found, Fact.OUTPUT_IDS).not_compared))
    assert "only a part" in next(iter(of(found, Fact.TOKEN_IDS).not_compared))
    false = answer(NEW)
    false["output_ids"][-1] += 1  # a token in the known part
    found = held(tmp_path, false, recording=cut)
    assert differing(found) == {Fact.TOKEN_IDS}


def test_the_start_of_rows_is_not_known_without_the_finish(tmp_path: Path) -> None:
    """Rows that begin where the client asked are then no difference."""
    recording = hdf5.load(path(NEW))
    begins = np.flatnonzero(recording.finishes.start_len > 0)
    assert len(begins) > 3
    for row in begins.tolist():
        told = stream(recording.rids[recording.finishes.qid[row]])
        at = int(recording.event_of(Kind.FINISH)[row])
        whole = of(held(tmp_path, *told), Fact.TRAINER)
        lost = of(held(tmp_path, *told, recording=without(recording, at, at + 1)), Fact.TRAINER)
        assert (whole.num_compared, lost.num_compared) == (1, 0)
        assert not (whole.differences or lost.differences)
        assert lost.not_compared == {"the recording has no end of this request": 1}


def test_the_trainer_fact_goes_by_the_start_that_the_client_asked_for(tmp_path: Path) -> None:
    """Here the finish reports another start."""
    recording = hdf5.load(path(NEW))
    row = int(np.flatnonzero(recording.finishes.start_len > 8)[0])
    start = recording.finishes.start_len.copy()
    start[row] -= 8
    finishes = dataclasses.replace(recording.finishes, start_len=start)
    told = stream(recording.rids[recording.finishes.qid[row]])
    found = held(tmp_path, *told, recording=dataclasses.replace(recording, finishes=finishes))
    assert of(found, Fact.TRAINER).num_compared == 1 and not differing(found)


def test_without_the_start_only_too_many_rows_differ(tmp_path: Path) -> None:
    """Up to 0.5.11 no scheduler is told the start that the client asks for."""
    recording = hdf5.load(path(NEW))
    row = int(np.flatnonzero(recording.finishes.start_len > 0)[0])
    told = stream(recording.rids[recording.finishes.qid[row]])
    trainer = of(held(tmp_path, *told, recording=without_start(recording)), Fact.TRAINER)
    assert trainer.num_compared == 0
    assert trainer.not_compared == {"the start_len that the client asked for was not captured": 1}
    old = without_start(hdf5.load(path(OLD)))
    trainer = of(held(tmp_path, *answers(OLD), release=OLD, recording=old), Fact.TRAINER)
    assert 0 < len(trainer.differences) == trainer.num_compared


def test_sums_over_messages_are_not_compared_if_the_request_was_seen_late(tmp_path: Path) -> None:
    recording = hdf5.load(path(NEW))
    met = np.full_like(recording.arrives.requeued, NONE64)
    arrives = dataclasses.replace(recording.arrives, requeued=met)
    changed = dataclasses.replace(recording, arrives=arrives)
    for fact in (Fact.OUTPUT_IDS, Fact.LOGPROBS):
        assert fact in compared(held(tmp_path, answer(NEW)))
        found = of(held(tmp_path, answer(NEW), recording=changed), fact)
        why = "a gap in the recording may hide messages to this client"
        assert found.not_compared == {why: 1}


def test_requests_still_running_are_counted_apart_from_ended_ones_without_a_response(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording, responses = ended(hdf5.load(path(NEW)), 400), tmp_path / "responses.jsonl"
    aborts = recording.aborts
    ends = {*recording.finishes.qid.tolist(), *aborts.qid[aborts.queued == 1].tolist()}
    others = {
        qid: qid in ends
        for qid, rid in enumerate(recording.rids)
        if rid != RID and not rid.startswith("HEALTH")
    }
    due, running = sum(others.values()), len(others) - sum(others.values())
    assert due != running
    hdf5.save(recording, tmp_path / "cut.h5")
    responses.write_text(json.dumps(answer(NEW)) + "\n")
    run(["reconcile", str(tmp_path / "cut.h5"), str(responses)])
    said = capsys.readouterr().out.splitlines()
    assert f"requests still running when the recording ends, without a response: {running}" in said
    assert any(line.startswith(f"ended requests without a response ({due}): ") for line in said)
