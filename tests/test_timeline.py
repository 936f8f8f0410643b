"""What a request's life says of each event, and where it says that paths part."""

from __future__ import annotations

import dataclasses

import pytest

from gaps import without
from lifting import bundled_recording
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import Kind
from specdiff.replay import spec
from specdiff.replay.timeline import lives

PREFILL = "one token, from the prefill"
CHUNK = "a chunk of the prompt, no token"
HIDDEN = "from the prefill: one token, or none of a chunk, which a gap hides"


def results(recording: Recording, rid: str) -> list[str]:
    (life,) = lives(recording, rid, [spec.Observed()])
    return [moment.detail for moment in life.moments if moment.kind is Kind.RESULT]


def test_only_the_last_chunk_of_a_prompt_makes_a_token() -> None:
    """What a gap hides may have been either."""
    recording = bundled_recording("0.5.13-chunked")
    assert results(recording, "chunk-1-2")[:4] == [CHUNK, CHUNK, PREFILL, "accepts 3"]
    last = int(
        recording.event_of(Kind.EXTEND)[recording.owner(Kind.EXTEND)][
            recording.extend_rows.qid == recording.rids.index("chunk-1-2")
        ][-1]
    )
    part = without(recording, last, last + 1)
    assert results(part, "chunk-1-2")[:4] == [CHUNK, CHUNK, HIDDEN, "accepts 3"]


@pytest.mark.parametrize("state", ["retracted", "finished"])
def test_what_was_prefilled_for_who_has_left_is_stale(state: str) -> None:
    recording = bundled_recording("0.5.23-new-weights")
    rows = recording.result_rows
    if state == "finished":
        rows = dataclasses.replace(rows, finished=rows.is_retracted, is_retracted=rows.finished)
    found = results(dataclasses.replace(recording, result_rows=rows), "r1-6")
    assert found[:2] == [f"{PREFILL}, stale: the request is {state}", PREFILL]
