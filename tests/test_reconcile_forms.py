"""The forms of responses that `specdiff reconcile` reads: lines, streams, slices, OpenAI choices, and mistakes in them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from served_answers import NEW, answer, answers, compared, differing, held, of, path, stream
from specdiff.cli.main import BROKEN, run
from specdiff.recorders import hdf5
from specdiff.recorders.schema import Reason
from specdiff.replay.reconcile.facts import Fact
from specdiff.replay.verdict import Verdict


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
def test_the_matched_stop_is_read_from_openai_responses_too(
    rid: str, ends: Reason, tmp_path: Path
) -> None:
    recording, one = hdf5.load(path(NEW)), answer(NEW, rid)
    (sent,) = np.flatnonzero(recording.sents.qid == recording.rids.index(rid))
    assert recording.sents.reason[sent] == ends
    assert not differing(held(tmp_path, one))
    one["choices"][0]["finish_reason"] = (
        "tool_calls"  # sglang says so instead of "stop" if a chat called a tool
    )
    assert not differing(held(tmp_path, one))
    one["choices"][0]["matched_stop"] = 7 if ends is Reason.STOP_STRING else "t0007"
    assert differing(held(tmp_path, one)) == {Fact.FINISH_REASON}


def test_a_response_with_several_choices_is_matched_but_not_compared(tmp_path: Path) -> None:
    (several,) = (one for one in answers(NEW) if "choices" in one and len(one["choices"]) == 2)
    found = held(tmp_path, several)
    assert found.num_matched == 1 and not compared(found)
    assert "several choices" in next(iter(of(found, Fact.PROMPT_TOKENS).not_compared))
    assert found.verdict(complete=False) is Verdict.NO_VERDICT


def test_a_stream_of_slices_is_put_together(tmp_path: Path) -> None:
    """That server ran with --incremental-streaming-output, so ids and log probabilities come in slices."""
    events = stream("http-3-0")
    assert len(events) > 3 and events[0]["meta_info"]["finish_reason"] is None
    found = held(tmp_path, *events)
    assert not differing(found) and {Fact.TOKEN_IDS, Fact.LOGPROBS} <= compared(found)
    assert found.num_parts == len(events) - 1 and found.num_responses == 1
    cut = held(tmp_path, *events[:-1])
    assert cut.unfinished == ("http-3-0",) and "http-3-0" not in cut.unanswered
    events[1]["output_ids"][0] += 1
    assert differing(held(tmp_path, *events)) == {Fact.TOKEN_IDS}
    del events[1]
    lost = {Fact.OUTPUT_IDS, Fact.TOKEN_IDS, Fact.LOGPROBS, Fact.TRAINER}
    assert differing(held(tmp_path, *events)) == lost


def test_slices_of_equal_tokens_are_put_together(tmp_path: Path) -> None:
    """Each slice begins like the one before it, which would also be true of a cumulative stream."""
    recording, events = hdf5.load(path(NEW)), stream("http-3-0")
    sevens = dataclasses.replace(recording, tokens=np.full_like(recording.tokens, 7))
    one_by_one = [event | {"output_ids": [7]} for event in events[:-1]]
    count = events[-1]["meta_info"]["completion_tokens"]
    last = events[-1] | {"output_ids": [7] * (count - len(one_by_one))}
    assert len(one_by_one) > 3 and len(last["output_ids"]) > 0
    found = held(tmp_path, *one_by_one, last, recording=sevens)
    assert not differing(found) and {Fact.OUTPUT_IDS, Fact.TOKEN_IDS} <= compared(found)


def test_a_cumulative_stream_is_read_from_its_last_event(tmp_path: Path) -> None:
    """Streams are cumulative by default. Synthetic: an earlier event is made of the last one, with its first ids."""
    last, before = answer(NEW), answer(NEW)
    before["output_ids"], before["meta_info"]["finish_reason"] = before["output_ids"][:3], None
    before["meta_info"]["output_token_logprobs"] = before["meta_info"]["output_token_logprobs"][:3]
    found = held(tmp_path, before, last)
    assert not differing(found) and compared(found) == set(Fact)
    last["output_ids"].pop()  # fewer ids than it says, but still no slice
    assert differing(held(tmp_path, before, last)) == {Fact.OUTPUT_IDS, Fact.TRAINER}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "line 2: not JSON"),
        ("[" * 100_000, "line 2: not JSON"),
        ("3", "line 2: found 3, expected an object, or a list of objects"),
        ('{"meta_info": {"id": 3}}', "line 2: id: found 3, expected a string"),
        ('{"meta_info": {"prompt_tokens": "3"}}', "prompt_tokens: found '3', expected an integer"),
        (
            '{"meta_info": {"weight_versions": [[]]}}',
            "weight_versions: found [[]], expected a list of objects",
        ),
        (
            '{"meta_info": {"weight_versions": [{"version": "v", "start": "0", "end": 3}]}}',
            "and integers start and end",
        ),
        (
            '{"meta_info": {"weight_versions": [{"version": null, "start": 0, "end": 3}]}}',
            "a list of objects with a version, and",
        ),
        (
            '{"meta_info": {"prompt_tokens": true}}',
            "prompt_tokens: found True, expected an integer",
        ),
        (
            '{"meta_info": {}, "output_ids": [1.5]}',
            "output_ids: found [1.5], expected a list of integers",
        ),
        (f'{{"meta_info": {{}}, "output_ids": [{2**70}]}}', "a list of integers of 64 bits."),
        (
            '{"choices": [{}], "sglext": {"output_ids": 5}}',
            "output_ids: found 5, expected a list of integers",
        ),
        (
            '{"meta_info": {"routed_experts": "?"}}',
            "routed_experts: found '?', expected base64 of int32",
        ),
        ('{"meta_info": {"routed_experts": "AAAA"}}', "base64 of int32 values (buffer size"),
        ('{"meta_info": {"hidden_states": 3}}', "hidden_states: found 3, expected a list"),
        (
            '{"meta_info": {"finish_reason": "stop"}}',
            "finish_reason: found 'stop', expected an object or null",
        ),
    ],
)
def test_an_unreadable_response_is_named_by_line_and_field(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "responses.jsonl"
    file.write_text(f"\n{text}\n")
    assert run(["reconcile", str(path(NEW)), str(file)]) == BROKEN
    assert says in capsys.readouterr().err
