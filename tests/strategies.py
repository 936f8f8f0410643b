"""Random recordings for property tests.

They are structurally valid but synthetic: no sglang ever behaved like this.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, composite

from specdiff.recorders.build import build
from specdiff.recorders.journal import HEADER, Type, frames
from specdiff.recorders.recording import Recording
from specdiff.recorders.run import Run, Site, Stats, to_json
from specdiff.recorders.schema import NONE32, NONE64, Finishes, Kind, Mode
from specdiff.recorders.wire import NUM_FIELDS, ROW_WIDTH, TopkRows, pack_event, pack_topk

RUN = Run(
    run_id="synthetic",
    specdiff_version="0",
    started="2026-01-01T00:00:00+00:00",
    command=("synthetic",),
    pid=1,
    python="3",
    sglang_version="synthetic",
    sglang_commit=None,
    books="unknown",
    sources={},
    sites=(Site("launch", "nowhere:nothing", True, True, None),),
    spec_algorithm="EAGLE",
    spec_v2=True,
    overlap=True,
    num_steps=3,
    topk=1,
    num_draft_tokens=4,
    page_size=1,
    device="none",
    needs_cpu_seq_lens=None,
    experts_capturer=True,
    indexer_capturer=True,
    tp_rank=0,
    tp_size=1,
    dp_rank=None,
    dp_size=1,
    pp_rank=0,
    pp_size=1,
    server_args={"model": "none", "flag": None},
)

_small = st.integers(0, 40)
_flag = st.integers(0, 1)
_nullable = st.one_of(_small, st.just(NONE64))


@composite
def journals(draw: DrawFn) -> bytes:
    """Draw the bytes of a whole journal: a run, some requests, and what happened to them.

    The order is mostly one that a scheduler could produce, so that claims, stale results and
    retracts meet. Any other event may come in between.
    """
    num_requests = draw(st.integers(1, 3))
    records: list[tuple[Kind | Type, bytes]] = [(Type.RUN, to_json(RUN).encode())]
    records += [(Type.REQUEST, _request(draw, qid)) for qid in range(num_requests)]
    world = _World(draw, num_requests)
    for act in draw(
        st.lists(st.sampled_from(_ACTS), min_size=draw(st.sampled_from([0, 12])), max_size=25)
    ):
        records += world.act(act)
    if draw(st.booleans()):
        stats = Stats(3, 0, 0, None, 1000, 2000, 3000, 2, True)
        records.append((Type.STATS, to_json(stats).encode()))
    return HEADER + frames(records)


@composite
def recordings(draw: DrawFn) -> Recording:
    return recording_of(draw(journals()))


def recording_of(journal: bytes) -> Recording:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.journal"
        path.write_bytes(journal)
        return build(path)


def _request(draw: DrawFn, qid: int) -> bytes:
    request = {
        "rid": f"r{qid}",
        "origin_len": draw(_small),
        "max_new_tokens": draw(st.one_of(_small, st.none())),
        "ignore_eos": draw(_flag),
        "has_grammar": 0,
        "return_routed_experts": draw(_flag),
        "start_len": draw(st.one_of(_small, st.none())),
        "stop": {"token_ids": [7], "texts": ["\u00e9nd"]},
    }
    return json.dumps(request).encode()


_ACTS = (
    "extend",
    "extend",
    "decode",
    "decode",
    "decode",
    "result",
    "result",
    "result",
    "retract",
    "gap",
    "no-overlap",
    "mixed",
    "mixed",
    "session_save",
    "noise",
)


_OF_ONE_REQUEST = (
    Kind.ARRIVE,
    Kind.RETRACT,
    Kind.ABORT,
    Kind.RELEASE,
    Kind.SESSION_SAVE,
    Kind.SESSION_RESTORE,
    Kind.SENT,
    Kind.WEIGHT_SPAN,
)
_FINISH_FIELDS = [field.name for field in fields(Finishes)]


class _World:
    """Draws events and keeps the launches that have no result yet, with their requests."""

    def __init__(self, draw: DrawFn, num_requests: int) -> None:
        self.draw, self.num_requests = draw, num_requests
        self.launches = self.events = 0
        self.unanswered: list[tuple[int, list[int]]] = []
        self.mixed: set[int] = set()

    def act(self, name: str) -> Iterator[tuple[Kind, bytes]]:
        everyone = list(range(self.num_requests))
        if name == "decode":
            yield self.event(Kind.PREPARE, everyone)
            yield self.event(Kind.LAUNCH, everyone, Mode.DECODE)
        elif name == "no-overlap":  # the previous step's result comes between prepare and launch
            yield self.event(Kind.PREPARE, everyone)
            yield self.event(Kind.RESULT, everyone)
            yield self.event(Kind.LAUNCH, everyone, Mode.DECODE)
        elif name == "mixed":
            extended = self.some()
            yield self.event(Kind.EXTEND, extended)
            yield self.event(Kind.PREPARE, [qid for qid in everyone if qid not in extended])
            yield self.event(Kind.LAUNCH, everyone, Mode.MIXED)
        elif name == "result":
            yield self.event(Kind.RESULT, everyone)
        elif name == "extend":
            yield self.event(Kind.EXTEND, self.some())
        elif name in ("retract", "gap", "session_save"):
            yield self.event(Kind[name.upper()], [])
        else:
            yield self.event(self.draw(st.sampled_from(list(Kind))), self.some())

    def some(self) -> list[int]:
        return self.draw(st.lists(self.one(), max_size=3, unique=True))

    def one(self) -> st.SearchStrategy[int]:
        return st.integers(0, self.num_requests - 1)

    def event(self, kind: Kind, qids: list[int], mode: Mode | None = None) -> tuple[Kind, bytes]:
        self.events += 1
        values = [self.draw(_nullable) for _ in range(NUM_FIELDS[kind])]
        answers = NONE64
        if kind is Kind.RESULT and self.unanswered and self.draw(st.integers(0, 9)):
            answers, qids = self.unanswered.pop(0)
        width = ROW_WIDTH.get(kind, 0)
        rows = [value for qid in qids for value in (qid, *self.numbers(width - 1))] if width else []
        if width:
            values[-1] = len(qids)
        blob = self.fix(kind, values, rows, qids, mode, answers)
        columns = [rows[at::width] for at in range(width)]
        return kind, pack_event(kind, self.events * 1000, self.events, values, columns, blob)

    def numbers(self, count: int) -> list[int]:
        return [self.draw(_small) for _ in range(count)]

    def fix(
        self,
        kind: Kind,
        values: list[int],
        rows: list[int],
        qids: list[int],
        mode: Mode | None,
        answers: int,
    ) -> bytes:
        """Put sane values where the structure, or the meaning of a flag, requires them."""
        if kind in (Kind.EXTEND, Kind.PREPARE, Kind.LAUNCH, Kind.FILTER, Kind.MERGE):
            values[0] = self.draw(st.integers(0, 2))
        if kind is Kind.EXTEND:
            rows[7::8] = [self.draw(st.sampled_from([0, 0, 5])) for _ in qids]
        if kind is Kind.MERGE:
            values[1] = self.draw(st.integers(0, 2))
        if kind is Kind.FILTER:
            values[1] = len(qids) + self.draw(st.integers(0, 2))
        if kind is Kind.LAUNCH:
            self.launches += 1
            values[1:3] = (
                self.launches,
                mode or self.draw(st.sampled_from([Mode.EXTEND, Mode.DECODE, Mode.MIXED])),
            )
            if values[2] == Mode.MIXED:
                self.mixed.add(self.launches)
            self.unanswered.append((self.launches, qids))
        if kind is Kind.RESULT:
            return self.result(values, rows, len(qids), answers)
        if kind is Kind.FINISH:
            return self.finish(values)
        if kind in _OF_ONE_REQUEST:
            values[0] = self.draw(self.one())
        return b""

    def result(self, values: list[int], rows: list[int], count: int, answers: int) -> bytes:
        decode = answers not in self.mixed and self.draw(st.sampled_from([True, True, False]))
        values[:2] = answers, Mode.DECODE if decode else Mode.EXTEND
        values[4] = self.draw(st.sampled_from([1, NONE64]))
        values[6] = count
        for row in range(0, len(rows), ROW_WIDTH[Kind.RESULT]):
            accepted = self.draw(st.integers(1, 4)) if decode else NONE32
            rows[row + 1] = rows[row + 2] = accepted
            rows[row + 3 : row + 5] = self.draw(
                st.sampled_from([(0, 0), (0, 0), (1, 0), (0, 1), (1, 1)])
            )
        return b"\x01\x00\x00\x00" * count

    def finish(self, values: list[int]) -> bytes:
        values[0] = self.draw(self.one())
        values[1:4] = self.draw(st.integers(0, 5)), self.draw(st.integers(1, 30)), self.draw(_small)
        values[8] = self.draw(_flag)
        parts = []
        for at in map(_FINISH_FIELDS.index, ("experts_state", "indexer_state")):
            stored = self.draw(st.integers(0, 3))
            state = self.draw(st.sampled_from([0, 1, NONE64]))
            values[at : at + 4] = state, self.draw(_small), stored, stored
            parts.append(TopkRows(1, 2, 2, stored, bytes(range(4 * stored))))
        return b"".join(pack_topk(part) for part in parts)
