"""What clients of real servers were told, held against what was recorded of them: nothing differs but what sglang got wrong."""

from __future__ import annotations

import base64
import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gaps import without
from lifting import bundled_recording
from specdiff.cli.main import BROKEN, DIFFERS, NO_VERDICT, SAME, USAGE, run
from specdiff.fixtures import make_served
from specdiff.fixtures.rig.script import token
from specdiff.recorders import hdf5
from specdiff.recorders.derived import Derived
from specdiff.recorders.recording import Recording, row_starts
from specdiff.recorders.schema import NONE64, Kind, Reason
from specdiff.recorders.stored_rows import StoredRows
from specdiff.replay.columns.shared import Columns
from specdiff.replay.laws.check import LAWS
from specdiff.replay.observed import observed
from specdiff.replay.outputs import UNKNOWN, outputs
from specdiff.replay.reconcile.facts import Fact
from specdiff.replay.reconcile.read import load
from specdiff.replay.reconcile.reconcile import FactResult, Reconciled, reconcile
from specdiff.replay.verdict import Verdict

OLD, NEW = "0.5.12", "0.5.23"
RID, OTHER = "http-3-16", "http-3-8"  # asked for everything, and got it whole; another
Answer = dict[str, Any]


def path(release: str) -> Path:
    return make_served.FOLDER / f"{release}.h5"


def answers(release: str) -> list[Any]:
    lines = path(release).with_suffix(".jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def answer(release: str, rid: str = RID) -> Answer:
    """That of one request, whatever its form; of a stream the last event."""
    flat = [
        one for line in answers(release) for one in (line if isinstance(line, list) else [line])
    ]
    last: Answer
    *_, last = (one for one in flat if (one.get("meta_info") or one).get("id") == rid)
    return last


def held(
    tmp_path: Path, *lines: object, recording: Recording | None = None, release: str = NEW
) -> Reconciled:
    """These responses against that recording."""
    file = tmp_path / "responses.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return reconcile(recording or hdf5.load(path(release)), load(file))


def of(found: Reconciled, fact: Fact) -> FactResult:
    return next(one for one in found.facts if one.fact is fact)


def differing(found: Reconciled) -> set[Fact]:
    return {one.fact for one in found.facts if one.differences}


def compared(found: Reconciled) -> set[Fact]:
    return {one.fact for one in found.facts if one.num_compared}


def test_every_fact_of_a_real_server_is_as_recorded(tmp_path: Path) -> None:
    found = held(tmp_path, *answers(NEW))
    assert found.verdict(complete=False) is Verdict.SAME
    assert compared(found) == set(Fact)
    assert found.num_matched == found.num_responses == 32
    for one in found.facts:  # every response is counted, under each fact
        assert one.num_compared + sum(one.not_compared.values()) == found.num_matched, one.fact
    assert of(found, Fact.TOKEN_IDS).num_compared > 25


def test_responses_alone_show_the_rows_behind_the_stop(tmp_path: Path) -> None:
    """Before #26126 a client gets rows of tokens that it does not get: those requests, and no others, that `check` names."""
    found, recording = held(tmp_path, *answers(OLD), release=OLD), hdf5.load(path(OLD))
    assert differing(found) == {Fact.TRAINER}
    columns = Columns(recording)
    trainer = next(law for law in LAWS if law.name == "trainer")
    places = trainer.check(columns, observed(columns))
    broken = {recording.rids[qid] for qid in places.qid[~places.holds].tolist()}
    assert {one.rid for one in of(found, Fact.TRAINER).differences} == broken
    assert len(broken) == 10


def _plus(name: str) -> Callable[[Answer], None]:
    def change(one: Answer) -> None:
        one["meta_info"][name] += 1

    return change


def _shorter(name: str) -> Callable[[Answer], None]:
    def change(one: Answer) -> None:
        one["meta_info"][name].pop()

    return change


def _row_less(name: str, values: int = 2 * 2) -> Callable[[Answer], None]:
    """2 layers, top 2."""

    def change(one: Answer) -> None:
        raw = base64.b64decode(one["meta_info"][name])
        one["meta_info"][name] = base64.b64encode(raw[: -4 * values]).decode()

    return change


def _another_expert(name: str) -> Callable[[Answer], None]:
    def change(one: Answer) -> None:
        values = np.frombuffer(base64.b64decode(one["meta_info"][name]), dtype="<i4").copy()
        values[13] += 1  # of row 3
        one["meta_info"][name] = base64.b64encode(values.tobytes()).decode()

    return change


def _finish(**reason: object) -> Callable[[Answer], None]:
    return lambda one: one["meta_info"].update(finish_reason=reason)


def _histogram(change: Callable[[list[int]], None]) -> Callable[[Answer], None]:
    return lambda one: change(one["meta_info"]["spec_correct_drafts_histogram"])


def _move(values: list[int]) -> None:
    """One step accepted a draft more: as many steps."""
    at = next(i for i, count in enumerate(values[:-1]) if count)
    values[at], values[at + 1] = values[at] - 1, values[at + 1] + 1


def _more(values: list[int]) -> None:
    values[0] += 1  # a step without a draft


def _ids(change: Callable[[list[int]], object]) -> Callable[[Answer], None]:
    def changed(one: Answer) -> None:
        change(one["output_ids"])

    return changed


def _token(values: list[int]) -> None:
    values[2] += 1


def _older(one: Answer) -> None:
    """Two tokens are of others."""
    (span,) = one["meta_info"]["weight_versions"]
    others = {"version": "the old", "start": 0, "end": 2}
    one["meta_info"]["weight_versions"] = [others, {**span, "start": 2}]


FALSE: dict[str, tuple[Callable[[Answer], None], set[Fact]]] = {
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
def test_what_a_client_was_told_falsely_is_named(what: str, tmp_path: Path) -> None:
    change, facts = FALSE[what]
    true, false = answer(NEW, OTHER), answer(NEW)
    change(false)
    found = held(tmp_path, true, false)
    assert differing(found) == facts
    for fact in facts:
        (first,) = of(found, fact).differences
        assert (first.rid, first.line) == (RID, 2) and first.told != first.recorded
    if what in ("another id", "another expert"):
        (first,) = of(found, next(iter(facts))).differences
        assert str(first.told).endswith("(token 2)" if what == "another id" else "(row 3)")


def test_padding_is_as_told(tmp_path: Path) -> None:
    """Where a row has fewer than k, sglang pads with -1; such rows are stored in four unsigned bytes."""
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


def test_rows_that_were_not_returned_are_held_against_nobody(tmp_path: Path) -> None:
    """As `--experts full` keeps them: here others before and behind each request's, where there is room before."""
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


def test_messages_that_were_missed_take_no_span_away(tmp_path: Path) -> None:
    """Recording began while it ran: fewer ids were seen than it was sent, its spans came with its end."""
    recording = hdf5.load(path(NEW))
    short = np.maximum(recording.sents.num_output_ids - 1, 0)
    sents = dataclasses.replace(recording.sents, num_output_ids=short)
    found = held(tmp_path, answer(NEW), recording=dataclasses.replace(recording, sents=sents))
    assert Fact.WEIGHT_VERSIONS in compared(found)


def test_every_fact_is_falsified_here() -> None:
    assert set().union(*(facts for _, facts in FALSE.values())) == set(Fact)


@pytest.mark.parametrize(
    ("rid", "lacks"),
    [
        ("batch-1", {Fact.LOGPROBS, Fact.HIDDEN_STATES, Fact.INDEXER_ROWS, Fact.INDEXER}),
        ("completion-0", {Fact.RETRACTIONS, Fact.LOGPROBS}),
        ("completion-1", {Fact.RETRACTIONS, Fact.OUTPUT_IDS, Fact.TRAINER, Fact.SPEC_VERIFY_CT}),
        ("chat-0", {Fact.RETRACTIONS, Fact.SPEC_VERIFY_CT}),
        ("chat-1", {Fact.OUTPUT_IDS, Fact.TRAINER}),
    ],
)
def test_each_form_of_a_response_is_read(rid: str, lacks: set[Fact], tmp_path: Path) -> None:
    found = held(tmp_path, answer(NEW, rid))
    assert found.verdict(complete=False) is Verdict.SAME and not compared(found) & lacks
    told = {Fact.FINISH_REASON, Fact.PROMPT_TOKENS, Fact.COMPLETION_TOKENS, Fact.EXPERTS_ROWS}
    told |= {Fact.WEIGHT_VERSIONS}
    every = told | {Fact.EXPERTS, Fact.CACHED_TOKENS, Fact.REASONING_TOKENS}
    assert compared(found) >= every
    assert (Fact.LOGPROBS in compared(found)) == rid.startswith("chat")
    assert (Fact.SPEC_VERIFY_CT in compared(found)) == (Fact.SPEC_VERIFY_CT not in lacks)


@pytest.mark.parametrize(
    ("rid", "ends"), [("completion-1", Reason.STOP_TOKEN), ("chat-0", Reason.STOP_STRING)]
)
def test_what_stopped_it_is_read_from_other_forms_too(
    rid: str, ends: Reason, tmp_path: Path
) -> None:
    recording, one = hdf5.load(path(NEW)), answer(NEW, rid)
    (sent,) = np.flatnonzero(recording.sents.qid == recording.rids.index(rid))
    assert recording.sents.reason[sent] == ends
    assert not differing(held(tmp_path, one))
    one["choices"][0]["finish_reason"] = (
        "tool_calls"  # what a chat that was stopped is told where it called a tool
    )
    assert not differing(held(tmp_path, one))
    one["choices"][0]["matched_stop"] = 7 if ends is Reason.STOP_STRING else "t0007"
    assert differing(held(tmp_path, one)) == {Fact.FINISH_REASON}


def test_several_choices_are_of_several_requests(tmp_path: Path) -> None:
    (several,) = (one for one in answers(NEW) if "choices" in one and len(one["choices"]) == 2)
    found = held(tmp_path, several)
    assert found.num_matched == 1 and not compared(found)
    assert "several choices" in next(iter(of(found, Fact.PROMPT_TOKENS).not_compared))
    assert found.verdict(complete=False) is Verdict.NO_VERDICT


def test_what_has_no_counterpart_is_named_and_counted(tmp_path: Path) -> None:
    one, twice, alien = answer(NEW), answer(NEW, OTHER), answer(NEW, "http-3-1")
    alien["meta_info"]["id"] = "elsewhere"
    found = held(tmp_path, one, twice, {"error": {"message": "no"}}, alien, twice)
    assert found.unknown == (("elsewhere", 4),) and found.ambiguous == (OTHER,)
    assert found.unnamed == (3,) and found.num_matched == 1 and found.num_responses == 4
    recording = hdf5.load(path(NEW))
    ended = {recording.rids[qid] for qid in recording.finishes.qid}
    assert set(found.unanswered) >= {rid for rid in ended if rid.startswith("http")} - {RID, OTHER}
    assert found.health_checks == 1 and not any("HEALTH" in rid for rid in found.unanswered)
    assert found.verdict(complete=False) is Verdict.SAME
    assert found.verdict(complete=True) is Verdict.DIFFERS


def test_an_abort_in_the_queue_was_sent_nothing_by_the_scheduler(tmp_path: Path) -> None:
    recording = hdf5.load(path(NEW))
    queued = recording.aborts.qid[recording.aborts.queued == 1]
    assert len(queued)
    found = held(tmp_path, answer(NEW, recording.rids[queued[0]]))
    assert compared(found) == {Fact.FINISH_REASON} and not differing(found)
    assert "aborted while it waited" in next(iter(of(found, Fact.OUTPUT_IDS).not_compared))


def _stream(rid: str) -> list[Answer]:
    return [one for one in answers(NEW) if "meta_info" in one and one["meta_info"]["id"] == rid]


def test_a_stream_that_tells_what_is_new_is_put_together(tmp_path: Path) -> None:
    """That server ran with --incremental-streaming-output: ids and log probabilities come in slices."""
    events = _stream("http-3-0")
    assert len(events) > 3 and events[0]["meta_info"]["finish_reason"] is None
    found = held(tmp_path, *events)
    assert not differing(found) and {Fact.TOKEN_IDS, Fact.LOGPROBS} <= compared(found)
    assert found.num_parts == len(events) - 1 and found.num_responses == 1
    assert held(tmp_path, *events[:-1]).unfinished == ("http-3-0",)
    events[1]["output_ids"][0] += 1
    assert differing(held(tmp_path, *events)) == {Fact.TOKEN_IDS}
    del events[1]
    lost = {Fact.OUTPUT_IDS, Fact.TOKEN_IDS, Fact.LOGPROBS, Fact.TRAINER}
    assert differing(held(tmp_path, *events)) == lost


def test_slices_of_a_model_that_repeats_itself_are_put_together(tmp_path: Path) -> None:
    """Each of them begins like the one before, as where a stream tells all each time."""
    recording, events = hdf5.load(path(NEW)), _stream("http-3-0")
    sevens = dataclasses.replace(recording, tokens=np.full_like(recording.tokens, 7))
    one_by_one = [event | {"output_ids": [7]} for event in events[:-1]]
    count = events[-1]["meta_info"]["completion_tokens"]
    last = events[-1] | {"output_ids": [7] * (count - len(one_by_one))}
    assert len(one_by_one) > 3 and len(last["output_ids"]) > 0
    found = held(tmp_path, *one_by_one, last, recording=sevens)
    assert not differing(found) and {Fact.OUTPUT_IDS, Fact.TOKEN_IDS} <= compared(found)


def test_a_stream_that_tells_all_each_time_is_not(tmp_path: Path) -> None:
    """As servers do by default: an event before the last, made of the last, has the first of its ids and counts."""
    last, before = answer(NEW), answer(NEW)
    before["output_ids"], before["meta_info"]["finish_reason"] = before["output_ids"][:3], None
    before["meta_info"]["output_token_logprobs"] = before["meta_info"]["output_token_logprobs"][:3]
    found = held(tmp_path, before, last)
    assert not differing(found) and compared(found) == set(Fact)
    last["output_ids"].pop()  # not as many as it says, and yet no slice
    assert differing(held(tmp_path, before, last)) == {Fact.OUTPUT_IDS, Fact.TRAINER}


def test_spans_that_leave_a_token_out_are_not_compared_and_said_so(tmp_path: Path) -> None:
    recording = hdf5.load(path(NEW))
    (row,) = np.flatnonzero(recording.spans.qid == recording.rids.index(RID))
    end = recording.spans.end.copy()
    end[row] -= 1
    short = dataclasses.replace(recording, spans=dataclasses.replace(recording.spans, end=end))
    found = of(held(tmp_path, answer(NEW), recording=short), Fact.WEIGHT_VERSIONS)
    why = "what was recorded of it is not all of its tokens, each once"
    assert found.num_compared == 0 and found.not_compared == {why: 1}


def test_what_an_older_format_lacks_is_not_compared(tmp_path: Path) -> None:
    """The finish says what is due; what was sent is not in such a file."""
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


@pytest.mark.parametrize(
    ("how", "lacks"),
    [
        ("no-tokens", {Fact.TOKEN_IDS}),
        ("redact", {Fact.TOKEN_IDS, Fact.EXPERTS, Fact.INDEXER}),
        ("shrink", {Fact.TOKEN_IDS, Fact.EXPERTS, Fact.INDEXER}),
    ],
)
def test_contents_that_were_replaced_are_not_held_against_a_client(
    how: str, lacks: set[Fact], tmp_path: Path
) -> None:
    whole = hdf5.load(path(NEW))
    replaced = dataclasses.replace(
        whole,
        tokens=np.zeros_like(whole.tokens),
        experts=whole.experts if how == "no-tokens" else np.zeros_like(whole.experts),
        indexer=whole.indexer if how == "no-tokens" else np.zeros_like(whole.indexer),
        derived=(Derived(how, "0" * 64, "as the recorder or the command does", 0),),
    )
    told = answers(NEW)
    before, found = held(tmp_path, *told), held(tmp_path, *told, recording=replaced)
    assert compared(before) - compared(found) == lacks & compared(before) and lacks & compared(
        before
    )
    assert differing(found) == differing(before)
    assert f"replaced by {how}" in str(of(found, Fact.TOKEN_IDS))


def test_sums_over_messages_are_not_known_across_a_gap(tmp_path: Path) -> None:
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
    false["output_ids"][-1] += 1  # that part is known
    found = held(tmp_path, false, recording=cut)
    assert differing(found) == {Fact.TOKEN_IDS}


def test_where_rows_start_is_not_known_without_the_finish(tmp_path: Path) -> None:
    """Nobody is blamed for rows that begin where the client wanted them."""
    recording = hdf5.load(path(NEW))
    begins = np.flatnonzero(recording.finishes.start_len > 0)
    assert len(begins) > 3
    for row in begins.tolist():
        told = _stream(recording.rids[recording.finishes.qid[row]])
        at = int(recording.event_of(Kind.FINISH)[row])
        whole = of(held(tmp_path, *told), Fact.TRAINER)
        lost = of(held(tmp_path, *told, recording=without(recording, at, at + 1)), Fact.TRAINER)
        assert (whole.num_compared, lost.num_compared) == (1, 0)
        assert not (whole.differences or lost.differences)
        assert lost.not_compared == {"the recording has no end of this request": 1}


def test_output_tokens_are_those_that_the_results_brought() -> None:
    recording = hdf5.load(path(NEW))
    found = outputs(recording, range(len(recording.rids)))
    finishes = recording.finishes
    assert [len(found[qid]) for qid in finishes.qid] == finishes.output_len.tolist()
    assert not any((found[qid] == UNKNOWN).any() for qid in finishes.qid)
    assert set(recording.sents.reason) >= {Reason.LENGTH, Reason.STOP_TOKEN}
    assert (finishes.finished_len != NONE64).any()


@pytest.mark.parametrize(
    "name", ["0.5.10-random", "0.5.13-chunked", "0.5.16-adaptive-random", "0.5.23-mixed"]
)
def test_output_tokens_are_those_of_the_script_wherever_events_are_lost(name: str) -> None:
    """What the rig's worker says is a function of request and position. What is lost is not known, never another token."""
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


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "line 2: not JSON"),
        ("[" * 100_000, "line 2: not JSON"),
        ("3", "line 2: 3, an object, or a list of objects was expected"),
        ('{"meta_info": {"id": 3}}', "line 2: id: 3, a string was expected"),
        ('{"meta_info": {"prompt_tokens": "3"}}', "prompt_tokens: '3', an integer was expected"),
        ('{"meta_info": {"weight_versions": [[]]}}', "weight_versions: [[]], a list of objects"),
        (
            '{"meta_info": {"weight_versions": [{"version": "v", "start": "0", "end": 3}]}}',
            "and integers start and end was expected",
        ),
        (
            '{"meta_info": {"weight_versions": [{"version": null, "start": 0, "end": 3}]}}',
            "a list of objects with a version, and",
        ),
        ('{"meta_info": {"prompt_tokens": true}}', "prompt_tokens: True, an integer"),
        ('{"meta_info": {}, "output_ids": [1.5]}', "output_ids: [1.5], a list of integers"),
        (f'{{"meta_info": {{}}, "output_ids": [{2**70}]}}', "a list of integers of 64 bits was"),
        ('{"choices": [{}], "sglext": {"output_ids": 5}}', "output_ids: 5, a list of integers"),
        ('{"meta_info": {"routed_experts": "?"}}', "routed_experts: '?', base64 of int32"),
        ('{"meta_info": {"routed_experts": "AAAA"}}', "base64 of int32 values (buffer size"),
        ('{"meta_info": {"hidden_states": 3}}', "hidden_states: 3, a list"),
        ('{"meta_info": {"finish_reason": "stop"}}', "finish_reason: 'stop', an object or null"),
    ],
)
def test_what_cannot_be_read_is_named_by_line_and_field(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "responses.jsonl"
    file.write_text(f"\n{text}\n")
    assert run(["reconcile", str(path(NEW)), str(file)]) == BROKEN
    assert says in capsys.readouterr().err


def test_the_command_judges_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    responses = str(path(NEW).with_suffix(".jsonl"))
    assert run(["reconcile", str(path(NEW)), responses]) == SAME
    capsys.readouterr()
    assert run(["reconcile", str(path(NEW)), responses, "--complete"]) == DIFFERS  # the warm-up's
    assert "values differ, and not all have a counterpart\n" in capsys.readouterr().out
    old = [str(path(OLD)), str(path(OLD).with_suffix(".jsonl"))]
    capsys.readouterr()
    assert run(["reconcile", *old]) == DIFFERS
    said = capsys.readouterr().out
    assert (
        "differs: 10 of" in said
        and "rows + start_len + 1 = 61, prompt + returned tokens = 60" in said
    )
    assert run(["reconcile", *old, "--format", "json"]) == DIFFERS
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "differs" and told["facts"]["trainer"]["differed"] == 10
    assert {"rid", "line", "told", "recorded"} == told["facts"]["trainer"]["differences"][0].keys()
    assert set(told["facts"]) == {fact.value for fact in Fact}
    assert run(["reconcile", str(path(NEW).parent), responses]) == USAGE
    assert run(["reconcile", str(path(NEW)), str(tmp_path / "no.jsonl")]) == BROKEN
    (tmp_path / "empty.jsonl").touch()
    assert run(["reconcile", str(path(NEW)), str(tmp_path / "empty.jsonl")]) == NO_VERDICT
