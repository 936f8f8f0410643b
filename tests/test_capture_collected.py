"""Routed rows on their way to the journal.

They are packed in the narrowest type, and some are dropped first if there is no room.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from recorder_alone import Owner, RequestStub, hook
from specdiff.recorders.build import build
from specdiff.recorders.capture.finish_probes import PROBES, Collected, _fitting, _itemsize
from specdiff.recorders.capture.recorder import Recorder
from specdiff.recorders.schema import NONE64
from strategies import RUN


@pytest.mark.parametrize(
    ("low", "high", "itemsize"),
    [(0, 255, 1), (0, 256, 2), (0, 65535, 2), (0, 65536, 4), (-1, 3, 4)],
)
def test_rows_take_the_narrowest_type_that_holds_them(low: int, high: int, itemsize: int) -> None:
    assert _itemsize(low, high) == itemsize


@pytest.mark.parametrize(
    ("returned", "more", "kept"), [(40, 40, [40, 40]), (40, 80, [40]), (120, 1, [])]
)
def test_rows_that_were_not_returned_are_dropped_first(
    returned: int, more: int, kept: list[int], recorder: Recorder
) -> None:
    """There is room for 2,000 bytes, and each row takes 20."""
    rows = Collected(1, 0, torch.zeros((returned, 1, 5), dtype=torch.int32))
    rows.after = torch.zeros((more, 1, 5), dtype=torch.int32)
    assert _fitting(recorder, rows, Collected()) == 20 * sum(kept)
    assert list(map(len, rows.kept)) == kept


def test_rows_that_are_only_counted_are_not_kept_in_memory() -> None:
    rows = Collected(1, 3, torch.zeros((20, 1, 1), dtype=torch.uint8))
    rows.only_counted()
    assert (rows.rows, rows.kept, rows.size, rows.tensor) == (20, [], 0, None)


Rows = tuple[
    tuple[int, int] | None, int | None
]  # [start, end) if any was asked for, number of rows


@pytest.mark.parametrize(
    ("asked", "rows", "start"),
    [
        ((2, 5), 3, 2),
        ((2, 5), 2, NONE64),  # nobody knows where these begin
        ((7, 5), 0, 5),  # the client asked for rows from a position past the end on
        ((0, -1), 0, 0),  # not even one token
        ((2, 5), None, 2),
        (None, None, NONE64),
        (None, 3, NONE64),
    ],
)
@pytest.mark.parametrize("which", ["experts", "indexer"])
def test_the_start_of_rows_is_what_this_collection_asked_for(
    which: str,
    asked: tuple[int, int] | None,
    rows: int | None,
    start: int,
    owner: Owner,
    tmp_path: Path,
) -> None:
    """Not what an earlier one did, for another request or for the other kind of rows."""
    recorder = Recorder(owner, tmp_path / "j", 1 << 20, RUN)
    earlier: Rows = (1, 4), 3
    for rid, these in (("a", earlier), ("b", (asked, rows))):
        req = _request(rid)
        _collect(recorder, req, "experts", these if which == "experts" else earlier)
        _collect(recorder, req, "indexer", these if which == "indexer" else earlier)
    recorder.close()
    finishes = build(tmp_path / "j").finishes
    found = {"experts": finishes.experts_start, "indexer": finishes.indexer_start}
    other = "indexer" if which == "experts" else "experts"
    assert found[which].tolist() == [1, start] and found[other].tolist() == [1, 1]
    assert recorder.exceptions == 0


def test_the_two_kinds_of_rows_of_one_finish_are_put_together(owner: Owner, tmp_path: Path) -> None:
    """Some finishes have only one kind. Those of another request do not take its place."""
    recorder, reqs = Recorder(owner, tmp_path / "j", 1 << 20, RUN), list(map(_request, "abcd"))
    for req, kinds in zip(reqs, (("experts", "indexer"), ("experts",), ("indexer",)), strict=False):
        for kind in kinds:
            _collect(recorder, req, kind, ((0, 2), 2))
    _collect(recorder, reqs[3], "experts", ((0, 2), 2))
    recorder.flush()
    assert recorder.finishing is None  # or it would keep the request and its rows in memory
    recorder.close()
    finishes = build(tmp_path / "j").finishes
    assert finishes.qid.tolist() == [0, 1, 2, 3]
    assert finishes.experts_stored.tolist() == [2, 2, 0, 2]
    assert finishes.indexer_stored.tolist() == [2, 0, 2, 0]


def _request(rid: str) -> Any:
    req: Any = RequestStub(rid)
    req.output_ids, req.return_logprob, req.return_hidden_states = [1, 2], False, False
    return req


def _collect(recorder: Recorder, req: Any, which: str, rows: Rows) -> None:
    """Run one of sglang's collecting functions on the request."""
    asked, count = rows
    attribute = {"experts": "routed_experts", "indexer": "indexer_topk"}[which]
    get = hook(recorder, lambda *_, **__: None, PROBES["topk"])

    def collect(processor: Any, req: Any) -> None:
        if asked is not None:
            get(None, 0, asked[1] + 1, None, start_len=asked[0])
        tensor = None if count is None else torch.zeros((count, 1, 2), dtype=torch.int32)
        setattr(req, attribute, tensor)

    hook(recorder, collect, PROBES[which])(None, req)
