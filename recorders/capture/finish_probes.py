"""What is recorded when a request finishes: its books before its KV is released, and the top-k rows collected for it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..schema import NONE64, Kind
from ..wire import TopkRows, pack_topk
from .choice import NO_ROWS
from .probe import Probe, nothing_after
from .reading import int64, on_cpu, reason_of
from .recorder import Recorder

_CAPTURER_MODULES = {
    "experts": (
        "sglang.srt.state_capturer.routed_experts",
        "sglang.srt.layers.moe.routed_experts_capturer",
    ),
    "indexer": ("sglang.srt.state_capturer.indexer_topk",),
}


@dataclass(slots=True)
class Collected:
    """What one collecting function left on the request; absent (NONE64) where the server has no capturer."""

    state: int = NONE64
    start: int = NONE64
    tensor: Any = None
    keep: bool = True  # the rows themselves, not only how many

    @property
    def rows(self) -> int:
        return 0 if self.tensor is None else int(self.tensor.shape[0])

    @property
    def kept(self) -> Any:
        return self.tensor if self.keep and on_cpu(self.tensor) else None


@dataclass(slots=True)
class Finish:
    """A finish under way: the experts function has run, the indexer function may still run."""

    req: Any
    qid: int
    committed: int
    allocated: int
    experts: Collected = field(default_factory=Collected)
    indexer: Collected = field(default_factory=Collected)


def _experts_before(recorder: Recorder, self: Any, req: Any, *_: Any, **__: Any) -> Finish:
    recorder.asked = None
    return _begin(recorder, req)


def _experts_after(recorder: Recorder, finish: Finish, _: None) -> None:
    finish.experts = _collected(recorder, "experts", getattr(finish.req, "routed_experts", None))
    recorder.finishing = finish
    recorder.emit_later(partial(_emit, recorder, finish))


def _indexer_before(recorder: Recorder, self: Any, req: Any, *_: Any, **__: Any) -> Finish:
    recorder.asked = None
    finish = recorder.finishing
    if isinstance(finish, Finish) and finish.req is req:
        return finish
    return _begin(recorder, req)


def _indexer_after(recorder: Recorder, finish: Finish, _: None) -> None:
    finish.indexer = _collected(recorder, "indexer", getattr(finish.req, "indexer_topk", None))
    if recorder.finishing is not finish:
        recorder.emit_later(partial(_emit, recorder, finish))
    recorder.flush()


def _topk_before(
    recorder: Recorder,
    self: Any,
    req_pool_idx: Any,
    seqlen: int,
    req_to_token_pool: Any,
    start_len: int = 0,
    **_: Any,
) -> None:
    end = max(int(seqlen) - 1, 0)
    recorder.asked = (min(int(start_len), end), end)


def _begin(recorder: Recorder, req: Any) -> Finish:
    access = recorder.access(req)
    return Finish(
        req, recorder.numbers.qid(req), access.committed.of(req), access.allocated.of(req)
    )


def _collected(recorder: Recorder, which: str, tensor: Any) -> Collected:
    start = NONE64 if recorder.asked is None else recorder.asked[0]
    if tensor is not None:
        return Collected(1, start, tensor)
    return Collected(0 if has_capturer(which) else NONE64, start)


def has_capturer(which: str) -> bool:
    """Whether this process collects such rows (up to 0.5.11 a no-op object stands for "no")."""
    for name in _CAPTURER_MODULES[which]:
        module = sys.modules.get(name)
        get = getattr(module, f"get_global_{which}_capturer", None)
        if get is not None:
            capturer = get()
            return capturer is not None and not type(capturer).__name__.endswith("Noop")
    return False


def _emit(recorder: Recorder, finish: Finish) -> None:
    req, experts, indexer = finish.req, finish.experts, finish.indexer
    recorder.finishing = None
    recorder.finished_at[finish.qid] = finish.committed
    head = (
        finish.qid,
        reason_of(req),
        len(req.origin_input_ids),
        len(req.output_ids),
        int64(getattr(req, "finished_len", None)),
        finish.committed,
        finish.allocated,
        int64(getattr(req, "cached_tokens", None)),
        int(bool(getattr(req, "return_routed_experts", False))),
        int64(getattr(req, "routed_experts_start_len", None)),
        *_statistics(recorder, req),
    )
    if recorder.choice.rows == NO_ROWS or not recorder.choice.takes(req.rid):
        experts.keep = indexer.keep = False
    size = sum(kept.nbytes for kept in (experts.kept, indexer.kept) if kept is not None)
    if not recorder.writer.has_room(size):  # rather the event without its rows than neither
        experts.keep = indexer.keep = False
        size = 0
    stamp = recorder.stamp()
    recorder.queue(
        Kind.FINISH, partial(_pack, recorder, stamp, head, experts, indexer), size, stamp
    )


def _statistics(recorder: Recorder, req: Any) -> tuple[int, ...]:
    """From `spec_verify_ct` to `num_hidden_states`, as in `schema.Finishes`."""
    access = recorder.access(req)
    histogram = access.histogram(req)
    return (
        int64(getattr(req, "spec_verify_ct", None)),
        access.accepted.of(req),
        NONE64 if histogram is None else sum(histogram),
        NONE64 if histogram is None else sum(i * count for i, count in enumerate(histogram)),
        int64(getattr(req, "reasoning_tokens", None)),
        int64(getattr(req, "retraction_count", None)),
        _length(getattr(req, "output_token_logprobs_val", None), req.return_logprob),
        _length(getattr(req, "hidden_states", None), req.return_hidden_states),
    )


def _length(values: Any, asked: bool) -> int:
    return len(values) if asked and values is not None else NONE64


def _pack(
    recorder: Recorder,
    stamp: tuple[int, int],
    head: tuple[int, ...],
    experts: Collected,
    indexer: Collected,
) -> bytes:
    """On the writer's thread: narrow the rows and write them behind the event."""
    values, blob = list(head), b""
    for collected in (experts, indexer):
        rows = _narrowed(recorder, collected)
        values += (collected.state, collected.start)
        values += (collected.rows if collected.state == 1 else NONE64, rows.rows if rows else 0)
        blob += pack_topk(rows)
    return recorder.pack(Kind.FINISH, stamp, values, (), blob)


def _narrowed(recorder: Recorder, collected: Collected) -> TopkRows | None:
    """The rows in the narrowest unsigned type that holds them; None when there are none to keep."""
    try:
        if collected.kept is None or not collected.rows:
            return None
        array = collected.kept.detach().numpy()
        array = array.reshape(array.shape[0], array.shape[1], -1)
        itemsize = _itemsize(int(array.min(initial=0)), int(array.max(initial=0)))
        data = array.astype(f"<u{itemsize}").tobytes()
        return TopkRows(itemsize, array.shape[1], array.shape[2], array.shape[0], data)
    except Exception as error:  # noqa: BLE001 (the writer must go on)
        recorder.failed(error)
        return None


def _itemsize(low: int, high: int) -> int:
    """Bytes a value; padding (-1, in indexer rows) wraps around and wants all four."""
    if low < 0:
        return 4
    return 1 if high < 1 << 8 else 2 if high < 1 << 16 else 4


PROBES = {
    "experts": Probe(_experts_before, _experts_after),
    "indexer": Probe(_indexer_before, _indexer_after),
    "topk": Probe(_topk_before, nothing_after),
}
