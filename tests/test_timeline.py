"""The life of a request: the text of each event, and the marks where paths differ."""

from __future__ import annotations

import dataclasses

import pytest

from gaps import without
from lifting import bundled_recording
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import Kind
from specdiff.replay import spec
from specdiff.replay.columns.shared import Columns
from specdiff.replay.diff import diff
from specdiff.replay.explain import Toggles
from specdiff.replay.other_values import QUANTITIES, OtherValue
from specdiff.replay.quantity import Quantity
from specdiff.replay.timeline import timelines
from specdiff.replay.verdict import ledger_of

PREFILL = "one token, from the prefill"
CHUNK = "a chunk of the prompt, no token"
HIDDEN = "from the prefill: one token, or none if it was a chunk (a gap hides which)"


def results(recording: Recording, rid: str) -> list[str]:
    (timeline,) = timelines(recording, rid, [spec.Observed()])
    return [entry.detail for entry in timeline.entries if entry.kind is Kind.RESULT]


def test_only_the_last_chunk_of_a_prompt_makes_a_token() -> None:
    """If a gap hides the extend, the result may be that of a chunk or of the last part."""
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
def test_the_prefill_result_of_a_request_that_has_left_is_stale(state: str) -> None:
    recording = bundled_recording("0.5.23-new-weights")
    rows = recording.result_rows
    if state == "finished":
        rows = dataclasses.replace(rows, finished=rows.is_retracted, is_retracted=rows.finished)
    found = results(dataclasses.replace(recording, result_rows=rows), "r1-6")
    assert found[:2] == [f"{PREFILL}, stale: the request is {state}", PREFILL]


@pytest.mark.parametrize(
    ("name", "old", "fixed", "quantity"),
    [
        ("0.5.12-indexer-topk", "observed", "sglang==0.5.13", Quantity.INDEXER_TOPK),
        ("0.5.10-stale-stop", "sglang==0.5.21", "sglang==0.5.22", Quantity.RELEASED_LEN),
        ("0.5.12-experts-overshoot", "old", "fixed", Quantity.ROUTED_EXPERTS),
        ("0.5.15-session-hole", "observed", "sglang==0.5.14", Quantity.SESSION_COMMITTED),
    ],
)
def test_a_life_is_marked_wherever_replay_finds_a_divergence(
    name: str, old: str, fixed: str, quantity: Quantity
) -> None:
    """Covers the quantities that are shown next to the lengths. No other event is marked for them."""
    recording, paths = bundled_recording(name), [spec.parse(old), spec.parse(fixed)]
    columns = Columns(recording)
    ledgers = (ledger_of(columns, Toggles(columns), path).only(QUANTITIES) for path in paths)
    parted = {
        (one.quantity, event)
        for one in diff(recording, *ledgers)
        for event in one.old.cells.event[one.differs].tolist()
    }
    assert quantity in {which for which, _ in parted}
    shown = set()
    for rid in dict.fromkeys(recording.rids):
        for timeline in timelines(recording, rid, paths):
            for entry in timeline.entries:
                pairs = [tuple(filter(None, said)) for said in entry.other_values]
                unlike = [pair for pair in pairs if len(set(pair)) > 1]
                shown |= {(pair[0].quantity, entry.event) for pair in unlike}
                assert entry.diverges or not unlike
    assert shown == parted


def test_a_released_length_is_shown_in_words() -> None:
    said = [str(OtherValue(Quantity.RELEASED_LEN, value)) for value in (14, None)]
    assert said == ["released 14", "released none"]
