"""What the rig's truth says of requests that a stop text, EOS or a grammar ends, and of the lists beside their tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest

from specdiff.fixtures.rig.grammar_scenarios import of_words
from specdiff.fixtures.rig.script import EOS_TOKEN, RequestScript, Wishes, token, word
from specdiff.fixtures.rig.stop_scenarios import words
from specdiff.fixtures.rig.truth import (
    Answer,
    complaint,
    grammar_position,
    lengths_allowed,
    stop_position,
    text_position,
)

PLAIN = RequestScript("ends", max_new_tokens=20)


def test_a_rid_says_where_the_model_ends_its_text() -> None:
    request = RequestScript("ends-eos7", max_new_tokens=20)
    outputs = [token(request.rid, position) for position in range(20)]
    assert [at for at, one in enumerate(outputs) if one == EOS_TOKEN] == [7]
    assert EOS_TOKEN not in request.prompt
    assert stop_position(request) == 7 and lengths_allowed(request) == {8}
    assert stop_position(replace(request, ignore_eos=True)) is None
    assert stop_position(replace(request, max_new_tokens=7)) is None


@pytest.mark.parametrize(("first", "last"), [(0, 0), (5, 5), (4, 6)])
def test_a_stop_text_ends_where_its_last_word_does(first: int, last: int) -> None:
    text = words(PLAIN.rid, first, last)
    assert text == "".join(word(token(PLAIN.rid, at)) for at in range(first, last + 1))
    for wishes in (Wishes(stop_texts=(text,)), Wishes(stop_regexes=(f"(?:{text}|never)",))):
        request = replace(PLAIN, wishes=wishes)
        assert text_position(request) == last
        # A release may let the whole run through, but no token more, and never fall short.
        assert lengths_allowed(request) == {20, *range(last + 1, last + 5)}
    assert text_position(PLAIN) is None


def test_a_grammar_is_complete_with_eos_heeded_or_not() -> None:
    wishes = Wishes(regex=of_words(6))
    request = RequestScript("ends-eos6", max_new_tokens=20, ignore_eos=True, wishes=wishes)
    assert grammar_position(request) == 6
    assert 7 in lengths_allowed(request)
    assert grammar_position(replace(request, wishes=Wishes())) is None


@pytest.mark.parametrize(
    ("logprobs", "hidden", "said"),
    [
        (0, 0, None),
        (20, 20, None),
        (19, 5, None),  # what older releases give
        (21, 0, "21 logprobs for 20 tokens"),
        (0, 21, "21 hidden states for 20 tokens"),
    ],
)
def test_a_list_that_is_longer_than_the_output_is_caught(
    logprobs: int, hidden: int, said: str | None
) -> None:
    answer = _answer(logprobs)
    answer.hidden_states = [[0.0]] * hidden
    assert complaint(PLAIN, answer) == said


def test_log_probabilities_of_other_tokens_are_caught() -> None:
    answer = _answer(20)
    answer.logprobs.reverse()
    assert complaint(PLAIN, answer) == "log probabilities are not those of its tokens"


def _answer(logprobs: int) -> Answer:
    outputs = [token(PLAIN.rid, position) for position in range(20)]
    return Answer(
        PLAIN.rid,
        output_ids=outputs,
        finished_reason={"type": "length"},
        logprobs=[-float(token(PLAIN.rid, position)) for position in range(logprobs)],
    )
