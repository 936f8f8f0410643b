"""The rig's expectations for requests that end by stop text, EOS or grammar, and for lists with one entry per token."""

from __future__ import annotations

from dataclasses import replace

import pytest

from specdiff.fixtures.rig.ends import (
    grammar_position,
    lengths_allowed,
    stop_position,
    text_position,
)
from specdiff.fixtures.rig.grammar_scenarios import of_words
from specdiff.fixtures.rig.scenarios import find_scenario
from specdiff.fixtures.rig.script import RequestOptions, RequestScript
from specdiff.fixtures.rig.stop_scenarios import words
from specdiff.fixtures.rig.tokens import EOS_TOKEN, token, word
from specdiff.fixtures.rig.truth import Answer, find_error

PLAIN = RequestScript("ends", max_new_tokens=20)


def test_a_request_id_with_eos_sets_where_the_model_ends_its_text() -> None:
    request = RequestScript("ends-eos7", max_new_tokens=20)
    outputs = [token(request.rid, position) for position in range(20)]
    assert [at for at, one in enumerate(outputs) if one == EOS_TOKEN] == [7]
    assert EOS_TOKEN not in request.prompt
    assert stop_position(request) == 7 and lengths_allowed(request) == {8}
    assert stop_position(replace(request, ignore_eos=True)) is None
    assert stop_position(replace(request, max_new_tokens=7)) is None


@pytest.mark.parametrize(("first", "last"), [(0, 0), (5, 5), (4, 6)])
def test_a_stop_text_ends_a_request_at_the_token_of_its_last_word(first: int, last: int) -> None:
    text = words(PLAIN.rid, first, last)
    assert text == "".join(word(token(PLAIN.rid, at)) for at in range(first, last + 1))
    for options in (
        RequestOptions(stop_texts=(text,)),
        RequestOptions(stop_regexes=(f"(?:{text}|never)",)),
    ):
        request = replace(PLAIN, options=options)
        assert text_position(request) == last
        # A release may return the rest of the run, but nothing after it, and never fewer tokens.
        assert lengths_allowed(request) == {20, *range(last + 1, last + 5 if last else 2)}
    assert text_position(PLAIN) is None


# Runs of 4: token 0 comes from the prefill, then the runs are 1 to 4, 5 to 8 and 9 to 12.
# Name, position of the stop token, position of the stop text, limit, and the lengths that 0.5.13, 0.5.16, 0.5.17 and 0.5.23
# may return.
ENDS = [
    # from 0.5.14 on a bug (docs/findings)
    ("a stop token, then a text", 5, 6, 20, ({6}, {7}, {7}, {7})),
    ("a text, then a stop token", 6, 5, 20, ({7}, {6}, {6}, {6})),
    ("a stop token in the run before the text's", 4, 5, 20, ({5}, {5}, {5}, {5})),
    ("a stop token at the limit", 5, None, 8, ({8}, {8}, {8}, {6})),
    ("a text at the limit", None, 5, 8, ({8}, {8}, {8}, {6})),
    ("a text alone", None, 5, 20, ({9, 20}, {6}, {6}, {6})),
    ("a stop token before the limit's run", 4, None, 8, ({5}, {5}, {5}, {5})),
]


@pytest.mark.parametrize(("what", "stop", "text", "limit", "lengths"), ENDS)
def test_with_two_ends_in_one_run_each_era_of_releases_has_its_own_length(
    what: str, stop: int | None, text: int | None, limit: int, lengths: tuple[set[int], ...]
) -> None:
    texts = () if text is None else (words(PLAIN.rid, text, text),)
    request = replace(
        PLAIN,
        max_new_tokens=limit,
        stop_at=stop,
        accept=(4,),
        options=RequestOptions(stop_texts=texts),
    )
    assert (stop_position(request), text_position(request)) == (stop, text)
    for version, allowed in zip(("0.5.13", "0.5.16", "0.5.17", "0.5.23"), lengths, strict=True):
        assert lengths_allowed(request, version, 0) == allowed, version
        # after a retraction it is not known where runs begin
        assert allowed <= lengths_allowed(request, version, 1)
        assert allowed <= lengths_allowed(request)


def test_the_known_stop_text_bug_passes_only_on_releases_that_have_it() -> None:
    """One run has EOS at position 1 and completes a stop text at 2. 2 tokens are right, 0.5.14 and later send 3."""
    scripts = find_scenario("stop-random", 2, 240).requests
    request = next(script for script in scripts if script.rid == "r2-89-eos1")
    for version in ("0.5.12", "0.5.13.post1"):
        assert find_error(request, _first(request, 2), version=version) is None
        assert find_error(request, _first(request, 3), version=version) == "3 tokens, expected 2"
    for version in ("0.5.14", "0.5.17", "0.5.23"):
        assert find_error(request, _first(request, 3), version=version) is None
        assert find_error(request, _first(request, 2), version=version) == "2 tokens, expected 3"


def _first(request: RequestScript, count: int) -> Answer:
    outputs = [token(request.rid, position) for position in range(count)]
    return Answer(request.rid, outputs, {"type": "stop"}, retractions=0)


def test_a_grammar_completes_at_eos_even_if_the_request_ignores_eos() -> None:
    options = RequestOptions(regex=of_words(6))
    request = RequestScript("ends-eos6", max_new_tokens=20, ignore_eos=True, options=options)
    assert grammar_position(request) == 6
    assert 7 in lengths_allowed(request)
    assert grammar_position(replace(request, options=RequestOptions())) is None


@pytest.mark.parametrize(
    ("logprobs", "hidden", "said"),
    [
        (0, 0, None),
        (20, 20, None),
        (19, 5, None),  # older releases return fewer
        (21, 0, "21 logprobs for 20 tokens"),
        (0, 21, "21 hidden states for 20 tokens"),
    ],
)
def test_a_list_longer_than_the_output_is_reported(
    logprobs: int, hidden: int, said: str | None
) -> None:
    answer = _answer(logprobs)
    answer.hidden_states = [[0.0]] * hidden
    assert find_error(PLAIN, answer) == said


def test_log_probabilities_of_other_tokens_are_reported() -> None:
    answer = _answer(20)
    answer.logprobs.reverse()
    assert find_error(PLAIN, answer) == "log probabilities are not those of its tokens"


def _answer(logprobs: int) -> Answer:
    outputs = [token(PLAIN.rid, position) for position in range(20)]
    return Answer(
        PLAIN.rid,
        output_ids=outputs,
        finished_reason={"type": "length"},
        logprobs=[-float(token(PLAIN.rid, position)) for position in range(logprobs)],
    )
