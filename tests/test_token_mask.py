"""`--no-tokens`: of a request's tokens, only those stay that can end this request."""

from __future__ import annotations

import gc
from pathlib import Path
from time import monotonic_ns
from typing import Any

import pytest

from recorder_alone import Owner, RequestStub, Thing
from specdiff.recorders.build import build
from specdiff.recorders.capture.choice import Choice, TokenMask
from specdiff.recorders.capture.recorder import Recorder
from specdiff.recorders.schema import NONE64, Kind
from specdiff.recorders.wire import ROW_WIDTH
from strategies import RUN


def described(*own: int, eos: tuple[int, ...] = (2,)) -> dict[str, Any]:
    return {"stop": {"token_ids": list(own), "eos_token_ids": list(eos)}, "vocab_size": 1000}


def test_stop_ids_of_one_client_unmask_nothing_of_another() -> None:
    mask = TokenMask(lambda qid: True)
    mask.learn(0, described(), 1)
    mask.learn(1, described(*range(500)), 1)
    mask.learn(2, described(7, 18), 1)
    row = [2, 17, 18, 499, 500, 1000, -1]
    assert mask(row, [0]) == [2, 0, 0, 0, 0, 1000, -1]
    assert mask(row, [1]) == [2, 17, 18, 499, 500, 1000, -1]
    assert mask(row, [2]) == [2, 0, 18, 0, 0, 1000, -1]
    assert mask(row * 3, [2, 0, 1]) == mask(row, [2]) + mask(row, [0]) + mask(row, [1])
    assert mask(row, [0, 1]) == mask(row, []) == mask(row, [0])  # not divided evenly


def test_a_filler_ends_no_request_even_if_the_models_stop_ids_are_learned_later() -> None:
    mask = TokenMask(lambda qid: True)
    mask.learn(0, described(0, 1), 1)
    assert mask([0, 1, 2, 5], [0]) == [0, 1, 2, 3]
    mask.learn(1, described(eos=(0, 3)), 1)
    assert mask([0, 1, 2, 5], [0]) == [0, 1, 2, 4] and mask([0, 5], [1]) == [0, 1]


@pytest.mark.parametrize("gone", [False, True])
def test_stop_ids_are_forgotten_when_nothing_queued_can_name_their_request(gone: bool) -> None:
    live: set[int] = set()
    mask = TokenMask(live.__contains__)
    for qid in range(1000):
        live.add(qid)
        if gone:
            live.discard(qid - 3)
        mask.learn(qid, described(qid % 900 + 10), monotonic_ns())
    assert len(mask._own) == 1000 if not gone else len(mask._own) < 50
    mask = TokenMask(live.__contains__)
    for qid in range(1000):  # all queued before the first of them was found to be gone
        mask.learn(qid, described(qid % 900 + 10), 1)
    assert mask([10, 50], [0]) == [10, 0] and len(mask._own) == 1000


def test_each_row_of_a_result_is_masked_by_its_own_requests_stop_ids(
    owner: Owner, tmp_path: Path
) -> None:
    recorder = Recorder(owner, tmp_path / "j", 1 << 20, RUN, choice=Choice(tokens=False))
    reqs = [RequestStub("a"), RequestStub("b")]
    for req, own in zip(reqs, ({5, 6}, set(range(1, 100))), strict=True):
        req.sampling_params = Thing()  # type: ignore[attr-defined]
        req.sampling_params.stop_token_ids = own  # type: ignore[attr-defined]
        req.eos_token_ids = {7}  # type: ignore[attr-defined]
        recorder.numbers.register(req)
    qids = [recorder.numbers.qid(req) for req in reversed(reqs)]
    with recorder.writer._lock:  # the requests are gone before their result is packed
        values = (None, 1, *(NONE64,) * 4, 6, 2)
        columns = [qids, *[[0, 0]] * (ROW_WIDTH[Kind.RESULT] - 1)]
        recorder.emit(Kind.RESULT, values, columns, [5, 7, 9, 5, 7, 9])
        del req, reqs
        gc.collect()
    recorder.close()
    found = build(tmp_path / "j")
    assert found.tokens.tolist() == [5, 7, 9, 5, 7, 0]
    assert recorder.exceptions == 0 and found.tokens_replaced
