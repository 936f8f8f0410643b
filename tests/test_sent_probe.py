"""The probe of messages to clients, without a server: what it counts of a request, and which messages count."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import pytest

from recorder_alone import Owner, RequestStub, Thing, hook
from specdiff.recorders.build import build
from specdiff.recorders.capture.recorder import Recorder
from specdiff.recorders.capture.sent_probes import PROBES
from specdiff.recorders.schema import NONE64, Reason
from strategies import RUN

HELD = [5, 6, 7, 8, 9]
ENDED = {"type": "length"}


class Streamer:
    """The object of sglang that sends messages. Most ranks have no socket."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket


def request(rid: str, *, return_logprob: bool = False) -> Any:
    req: Any = RequestStub(rid)
    req.output_ids, req.return_logprob = array("q", HELD), return_logprob
    return req


def message(parts: dict[str, list[int]], *, ended: bool, name: str = "BatchTokenIDOutput") -> Any:
    """Return a message with these ids by request, and as many log probabilities."""
    output: Any = type(name, (Thing,), {})()
    output.rids, output.output_ids = list(parts), list(parts.values())
    output.output_token_logprobs_val = [[-1.0] * len(ids) for ids in parts.values()]
    output.finished_reasons = [ENDED if ended else None] * len(parts)
    output.prompt_tokens, output.completion_tokens = [3] * len(parts), [len(HELD)] * len(parts)
    return output


@pytest.mark.parametrize("kind", [list, lambda ids: array("q", ids)])
@pytest.mark.parametrize(
    ("slices", "in_order"),
    [
        ([[5, 6], [], [7], [8, 9]], 5),
        ([[5, 6], [5], [7], [8, 9]], 2),  # sent again
        ([[5, 6], [8, 9]], 2),  # left out
        ([[4], [6, 7], [8]], 0),
        ([[5, 6, 7, 8, 9], [1]], 5),  # more than the request has
    ],
)
def test_ids_count_as_in_order_up_to_the_first_slice_that_is_not_due(
    slices: list[list[int]], in_order: int, kind: Any, owner: Owner, tmp_path: Path
) -> None:
    """Slices after it do not count, even if they are where they belong."""
    recorder = Recorder(owner, tmp_path / "j", 1 << 20, RUN)
    reqs = [request("a", return_logprob=True), request("b")]
    for req in reqs:
        recorder.numbers.register(req)
    send = hook(recorder, lambda *_: None, PROBES["send"])
    for at, ids in enumerate(slices):
        send(Streamer(1), message({"a": kind(ids), "b": []}, ended=at == len(slices) - 1))
    recorder.close()
    sents, size = build(tmp_path / "j").sents, sum(map(len, slices))
    assert sents.qid.tolist() == [0, 1] and set(sents.reason) == {Reason.LENGTH}
    assert sents.num_messages.tolist() == [len(slices)] * 2
    assert sents.num_output_ids.tolist() == [size, 0]
    assert sents.num_in_order.tolist() == [in_order, 0]
    assert sents.num_logprobs.tolist() == [size, NONE64]  # b did not ask for them


def test_only_messages_with_tokens_that_leave_this_process_are_counted(
    owner: Owner, tmp_path: Path
) -> None:
    """A request that was rejected before it was queued is in no books, but in a message."""
    recorder, req = Recorder(owner, tmp_path / "j", 1 << 20, RUN), request("a")
    recorder.numbers.register(req)
    send = hook(recorder, lambda *_: None, PROBES["send"])
    parts = {"rejected": [1], "a": HELD}
    without = message(parts, ended=True)
    without.output_ids = None
    send(Streamer(None), message(parts, ended=True))  # another rank sends it
    send(Streamer(1), without)
    send(Streamer(1), message(parts, ended=True, name="BatchEmbeddingOutput"))
    send(Streamer(1), message(parts, ended=True))
    recorder.close()
    found = build(tmp_path / "j")
    assert found.sents.num_messages.tolist() == [1] and found.rids == ("a",)
    assert found.sents.num_output_ids.tolist() == [len(HELD)] == found.sents.num_in_order.tolist()
    assert recorder.exceptions == recorder.dropped == 0
