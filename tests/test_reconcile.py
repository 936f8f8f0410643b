"""`specdiff reconcile`: the responses that clients of real servers got, compared with the recordings."""

from __future__ import annotations

import base64
import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from documented import documented_keys
from gaps import without
from lifting import bundled_recording
from served_answers import (
    NEW,
    OLD,
    OTHER,
    RID,
    JsonAnswer,
    answer,
    answers,
    compared,
    differing,
    held,
    of,
    path,
)
from specdiff.cli.main import BROKEN, DIFFERS, NO_VERDICT, SAME, USAGE, run
from specdiff.fixtures.rig.tokens import token
from specdiff.recorders import hdf5
from specdiff.recorders.recording import Recording, row_starts
from specdiff.recorders.schema import NONE64, Reason
from specdiff.recorders.stored_rows import StoredRows
from specdiff.replay.columns.shared import Columns
from specdiff.replay.laws.check import LAWS
from specdiff.replay.observed import observed
from specdiff.replay.outputs import UNKNOWN, outputs
from specdiff.replay.reconcile.facts import Fact
from specdiff.replay.reconcile.reconcile import Reconciled
from specdiff.replay.verdict import Verdict


def test_the_responses_of_a_real_server_equal_its_recording_in_every_fact(tmp_path: Path) -> None:
    found = held(tmp_path, *answers(NEW))
    assert found.verdict(complete=False) is Verdict.SAME
    assert compared(found) == set(Fact)
    assert found.num_matched == found.num_responses == 32
    for one in found.facts:  # each fact counts every response
        assert one.num_compared + sum(one.not_compared.values()) == found.num_matched, one.fact
    assert of(found, Fact.TOKEN_IDS).num_compared > 25


def test_rows_that_nobody_collected_are_not_said_to_be_missing(tmp_path: Path) -> None:
    """That would read as if the recording lacked them. This server has no indexer."""
    found = held(tmp_path, *answers(OLD), release=OLD)
    (why,) = of(found, Fact.INDEXER).not_compared
    assert "the client did not ask for it, or the server does not keep it" in why


def test_responses_of_0_5_12_show_the_rows_past_the_stop(tmp_path: Path) -> None:
    """Before #26126, a client gets rows of tokens that it does not get. `check` names the same requests."""
    found, recording = held(tmp_path, *answers(OLD), release=OLD), hdf5.load(path(OLD))
    assert differing(found) == {Fact.TRAINER}
    columns = Columns(recording)
    trainer = next(law for law in LAWS if law.name == "trainer")
    places = trainer.check(columns, observed(columns))
    broken = {recording.rids[qid] for qid in places.qid[~places.holds].tolist()}
    assert {one.rid for one in of(found, Fact.TRAINER).differences} == broken
    assert len(broken) == 10


def _plus(name: str) -> Callable[[JsonAnswer], None]:
    def change(one: JsonAnswer) -> None:
        one["meta_info"][name] += 1

    return change


def _shorter(name: str) -> Callable[[JsonAnswer], None]:
    def change(one: JsonAnswer) -> None:
        one["meta_info"][name].pop()

    return change


def _row_less(name: str, values: int = 2 * 2) -> Callable[[JsonAnswer], None]:
    """Drop `values` int32 values from the end. A row has 4: 2 layers, top 2."""

    def change(one: JsonAnswer) -> None:
        raw = base64.b64decode(one["meta_info"][name])
        one["meta_info"][name] = base64.b64encode(raw[: -4 * values]).decode()

    return change


def _another_expert(name: str) -> Callable[[JsonAnswer], None]:
    def change(one: JsonAnswer) -> None:
        values = np.frombuffer(base64.b64decode(one["meta_info"][name]), dtype="<i4").copy()
        values[13] += 1  # in row 3
        one["meta_info"][name] = base64.b64encode(values.tobytes()).decode()

    return change


def _finish(**reason: object) -> Callable[[JsonAnswer], None]:
    return lambda one: one["meta_info"].update(finish_reason=reason)


def _histogram(change: Callable[[list[int]], None]) -> Callable[[JsonAnswer], None]:
    return lambda one: change(one["meta_info"]["spec_correct_drafts_histogram"])


def _move(values: list[int]) -> None:
    """Count one step as having accepted one draft more. The number of steps stays."""
    at = next(i for i, count in enumerate(values[:-1]) if count)
    values[at], values[at + 1] = values[at] - 1, values[at + 1] + 1


def _more(values: list[int]) -> None:
    values[0] += 1  # one more step, which accepted no draft


def _ids(change: Callable[[list[int]], object]) -> Callable[[JsonAnswer], None]:
    def changed(one: JsonAnswer) -> None:
        change(one["output_ids"])

    return changed


def _token(values: list[int]) -> None:
    values[2] += 1


def _older(one: JsonAnswer) -> None:
    """Label the first two tokens with other weights."""
    (span,) = one["meta_info"]["weight_versions"]
    others = {"version": "the old", "start": 0, "end": 2}
    one["meta_info"]["weight_versions"] = [others, {**span, "start": 2}]


FALSE: dict[str, tuple[Callable[[JsonAnswer], None], set[Fact]]] = {
    "another end": (_finish(type="abort"), {Fact.FINISH_REASON}),
    "text for token": (_finish(type="stop", matched="7"), {Fact.FINISH_REASON}),
    "prompt": (_plus("prompt_tokens"), {Fact.PROMPT_TOKENS, Fact.TRAINER}),
    "completion": (_plus("completion_tokens"), {Fact.COMPLETION_TOKENS}),
    "an id less": (_ids(list.pop), {Fact.OUTPUT_IDS, Fact.TRAINER}),
    "another id": (_ids(_token), {Fact.TOKEN_IDS}),
    "cached": (_plus("cached_tokens"), {Fact.CACHED_TOKENS}),
    "reasoning": (_plus("reasoning_tokens"), {Fact.REASONING_TOKENS}),
    "verify": (_plus("spec_verify_ct"), {Fact.SPEC_VERIFY_CT}),
    "accepted": (_plus("spec_num_correct_drafts"), {Fact.SPEC_ACCEPTED_DRAFTS}),
    "a draft more": (_histogram(_move), {Fact.HISTOGRAM_DRAFTS}),
    "a step more": (_histogram(_more), {Fact.HISTOGRAM_STEPS}),
    "retractions": (_plus("num_retractions"), {Fact.RETRACTIONS}),
    "older weights": (_older, {Fact.WEIGHT_VERSIONS}),
    "logprobs": (_shorter("output_token_logprobs"), {Fact.LOGPROBS}),
    "hidden states": (_shorter("hidden_states"), {Fact.HIDDEN_STATES}),
    "a row less": (_row_less("routed_experts"), {Fact.EXPERTS_ROWS, Fact.TRAINER}),
    "a part of a row less": (_row_less("routed_experts", 1), {Fact.EXPERTS_ROWS}),
    "another expert": (_another_expert("routed_experts"), {Fact.EXPERTS}),
    "an index row less": (_row_less("indexer_topk"), {Fact.INDEXER_ROWS}),
    "another index": (_another_expert("indexer_topk"), {Fact.INDEXER}),
}


@pytest.mark.parametrize("what", FALSE)
def test_a_false_value_in_a_response_is_named_by_fact_request_and_line(
    what: str, tmp_path: Path
) -> None:
    change, facts = FALSE[what]
    true, false = answer(NEW, OTHER), answer(NEW)
    change(false)
    found = held(tmp_path, true, false)
    assert differing(found) == facts
    for fact in facts:
        (first,) = of(found, fact).differences
        assert (first.rid, first.line) == (RID, 2) and first.received != first.recorded
    if what in ("another id", "another expert"):
        (first,) = of(found, next(iter(facts))).differences
        assert str(first.received).endswith("(token 2)" if what == "another id" else "(row 3)")


def test_an_empty_list_in_a_response_is_a_difference_of_length_and_equals_nothing(
    tmp_path: Path,
) -> None:
    """The number of entries differs. Their contents are not compared, because there are none."""
    one = answer(NEW)
    one["output_ids"], one["meta_info"]["routed_experts"] = [], ""
    found = held(tmp_path, one)
    for contents, number in ((Fact.TOKEN_IDS, Fact.OUTPUT_IDS), (Fact.EXPERTS, Fact.EXPERTS_ROWS)):
        assert of(found, contents).not_compared == {"none in the response": 1}
        assert not of(found, contents).num_compared and of(found, number).differences


def test_padding_of_minus_one_equals_its_stored_unsigned_form(tmp_path: Path) -> None:
    """If a row has fewer than k entries, sglang pads it with -1. Recordings store such rows as unsigned 32-bit."""
    recording, one = hdf5.load(path(NEW)), answer(NEW)
    finishes = recording.finishes
    (row,) = np.flatnonzero(finishes.qid == recording.rids.index(RID))
    indexer = recording.indexer.astype(np.uint32)
    indexer[int(finishes.indexer_stored[:row].sum()), 0, 0] = 2**32 - 1
    told = np.frombuffer(base64.b64decode(one["meta_info"]["indexer_topk"]), dtype="<i4").copy()
    told[0] = -1
    padded = dataclasses.replace(recording, indexer=indexer)
    assert differing(held(tmp_path, one, recording=padded)) == {Fact.INDEXER}
    one["meta_info"]["indexer_topk"] = base64.b64encode(told.tobytes()).decode()
    assert not differing(held(tmp_path, one, recording=padded))


def test_recorded_rows_that_were_not_returned_are_not_compared(tmp_path: Path) -> None:
    """`--experts full` keeps such rows. Here each request gets one more row after its own, and one before if there is room."""
    recording = hdf5.load(path(NEW))
    finishes, held = recording.finishes, StoredRows(recording, "experts")
    room = held.start > 0
    assert room.any() and not room.all()
    before, behind = row_starts(finishes.experts_stored)[room], np.cumsum(finishes.experts_stored)
    more = dataclasses.replace(
        finishes,
        experts_stored=finishes.experts_stored + room + 1,
        experts_stored_from=held.start - room,
    )
    rows = np.insert(recording.experts, np.concatenate([before, behind]), 63, axis=0)
    found = held_against(tmp_path, dataclasses.replace(recording, finishes=more, experts=rows))
    assert not differing(found)
    assert (
        of(found, Fact.EXPERTS).num_compared
        == of(held_against(tmp_path, recording), Fact.EXPERTS).num_compared
        > 0
    )


def held_against(tmp_path: Path, recording: Recording) -> Reconciled:
    return held(tmp_path, *answers(NEW), recording=recording)


def test_the_cases_above_falsify_every_fact() -> None:
    assert set().union(*(facts for _, facts in FALSE.values())) == set(Fact)


def test_responses_and_requests_without_a_counterpart_are_named_and_counted(tmp_path: Path) -> None:
    one, twice, alien = answer(NEW), answer(NEW, OTHER), answer(NEW, "http-3-1")
    alien["meta_info"]["id"] = "elsewhere"
    found = held(tmp_path, one, twice, {"error": {"message": "no"}}, alien, twice)
    assert found.unknown == (("elsewhere", 4),) and found.ambiguous == (OTHER,)
    assert found.unnamed == (3,) and found.num_matched == 3 and found.num_responses == 4
    recording = hdf5.load(path(NEW))
    ended = {recording.rids[qid] for qid in recording.finishes.qid}
    assert set(found.unanswered) >= {rid for rid in ended if rid.startswith("http")} - {RID, OTHER}
    assert found.health_checks == 1 and not any("HEALTH" in rid for rid in found.unanswered)
    assert found.verdict(complete=False) is Verdict.SAME
    assert found.verdict(complete=True) is Verdict.DIFFERS


def test_responses_that_appear_twice_match_although_they_are_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It said that none of them match, as if they were of another server."""
    alien = answer(NEW, "http-3-1")
    alien["meta_info"]["id"] = "elsewhere"
    lines = [answer(NEW), answer(NEW, OTHER), alien] * 2
    found = held(tmp_path, *lines)
    assert (found.num_matched, found.num_responses) == (4, 6)
    assert found.ambiguous == (RID, OTHER, "elsewhere")
    assert found.unknown == (("elsewhere", 3), ("elsewhere", 6))
    for one in found.facts:
        assert not one.num_compared
        assert one.not_compared == {"several responses or requests have this id": 4}, one.fact
    command = ["reconcile", str(path(NEW)), str(tmp_path / "responses.jsonl")]
    assert run(command) == NO_VERDICT
    said = capsys.readouterr().out
    assert "4 of 6 responses match a recorded request\n" in said
    assert f"several responses or requests, not compared (3): {RID}, {OTHER}, elsewhere\n" in said
    assert run([*command, "--format", "json"]) == NO_VERDICT
    report = json.loads(capsys.readouterr().out)
    assert (report["num_matched"], report["num_responses"]) == (4, 6)


def test_of_a_request_aborted_in_the_queue_only_the_finish_reason_is_compared(
    tmp_path: Path,
) -> None:
    recording = hdf5.load(path(NEW))
    queued = recording.aborts.qid[recording.aborts.queued == 1]
    assert len(queued)
    found = held(tmp_path, answer(NEW, recording.rids[queued[0]]))
    assert compared(found) == {Fact.FINISH_REASON} and not differing(found)
    assert "aborted in the queue" in next(iter(of(found, Fact.OUTPUT_IDS).not_compared))


def test_output_tokens_are_put_together_from_the_results() -> None:
    recording = hdf5.load(path(NEW))
    found = outputs(recording, range(len(recording.rids)))
    finishes = recording.finishes
    assert [len(found[qid]) for qid in finishes.qid] == finishes.output_len.tolist()
    assert not any((found[qid] == UNKNOWN).any() for qid in finishes.qid)
    assert set(recording.sents.reason) >= {Reason.LENGTH, Reason.STOP_TOKEN}
    assert (finishes.finished_len != NONE64).any()


def test_tokens_that_a_grammar_cut_off_are_no_output() -> None:
    """As if a grammar had ended in the middle of each request's last result."""
    recording = hdf5.load(path(NEW))
    rows, every = recording.result_rows, range(len(recording.rids))
    live = (rows.finished == 0) & (rows.is_retracted == 0)
    last = [int(np.flatnonzero(live & (rows.qid == qid))[-1]) for qid in set(rows.qid[live])]
    long = [row for row in last if rows.accept_len[row] > 1]
    emitted = rows.num_emitted.copy()
    emitted[long] -= 1
    cut = dataclasses.replace(rows, num_emitted=emitted)
    whole, part = (
        outputs(recording, every),
        outputs(dataclasses.replace(recording, result_rows=cut), every),
    )
    shorter = {int(rows.qid[row]) for row in long}
    assert len(shorter) > 3
    for qid in every:
        assert part[qid].tolist() == whole[qid][: len(whole[qid]) - (qid in shorter)].tolist()


@pytest.mark.parametrize(
    "name", ["0.5.10-random", "0.5.13-chunked", "0.5.16-adaptive-random", "0.5.23-mixed"]
)
def test_lost_events_leave_output_tokens_unknown_but_never_wrong(name: str) -> None:
    """The rig computes each token from request and position, so the true tokens are known."""
    recording, draw = bundled_recording(name), random.Random(1)
    size = len(recording.events.kind)
    cuts = [draw.randrange(size) for _ in range(25)]
    for part in (recording, *(without(recording, at, at + draw.randint(1, 9)) for at in cuts)):
        found = outputs(part, range(len(part.rids)))
        for qid, tokens in found.items():
            known = np.flatnonzero(tokens != UNKNOWN)
            said = [token(part.rids[qid], at) for at in known.tolist()]
            assert tokens[known].tolist() == said
        assert sum(len(tokens) for tokens in found.values()) > 50


def test_the_command_exits_with_its_verdict_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    responses = str(path(NEW).with_suffix(".jsonl"))
    assert run(["reconcile", str(path(NEW)), responses]) == SAME
    capsys.readouterr()
    # the warm-up request has no response
    assert run(["reconcile", str(path(NEW)), responses, "--complete"]) == DIFFERS
    assert (
        "values differ, and some responses or requests have no counterpart\n"
        in capsys.readouterr().out
    )
    old = [str(path(OLD)), str(path(OLD).with_suffix(".jsonl"))]
    capsys.readouterr()
    assert run(["reconcile", *old]) == DIFFERS
    said = capsys.readouterr().out
    assert (
        "differs: 10 of" in said
        and "rows + start_len + 1 = 61, prompt + returned tokens = 60" in said
    )
    assert run(["reconcile", *old, "--format", "json"]) == DIFFERS
    report = json.loads(capsys.readouterr().out)
    assert report.keys() == documented_keys("reconcile.md", "## Exit codes and JSON")
    assert report["verdict"] == "differs" and report["facts"]["trainer"]["differed"] == 10
    first = report["facts"]["trainer"]["differences"][0]
    assert {"rid", "line", "received", "recorded"} == first.keys()
    assert (first["received"], first["recorded"]) == (61, 60)  # as in the text
    assert set(report["facts"]) == {fact.value for fact in Fact}
    assert run(["reconcile", str(path(NEW).parent), responses]) == USAGE
    assert run(["reconcile", str(path(NEW)), str(tmp_path / "no.jsonl")]) == BROKEN
    (tmp_path / "empty.jsonl").touch()
    assert run(["reconcile", str(path(NEW)), str(tmp_path / "empty.jsonl")]) == NO_VERDICT
