"""The probes of a finish: the request's books before its KV is released, and its top-k rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..schema import NONE64, Kind
from ..wire import TopkRows, pack_topk
from .capturer import PoolRow, has_capturer
from .choice import FULL, NO_ROWS, TAIL_TOO
from .probe import Probe, nothing_after
from .reading import int64, on_cpu, reason_of
from .recorder import Recorder


@dataclass(slots=True)
class Collected:
    """The rows that one of sglang's collecting functions put on the request.

    `state` is absent (NONE64) if the server has no capturer. `before` and `after` are adjacent
    rows that the server has but did not return.
    """

    state: int = NONE64
    start: int = NONE64
    tensor: Any = None
    before: Any = None
    after: Any = None
    count: int = 0  # number of rows, if they are only counted and not kept

    @property
    def rows(self) -> int:
        return self.count if self.tensor is None else int(self.tensor.shape[0])

    @property
    def kept(self) -> list[Any]:
        """The kept rows, ordered by position."""
        parts = (self.before, self.tensor, self.after) if self._on_cpu else ()
        return [part for part in parts if part is not None]

    @property
    def kept_from(self) -> int:
        """The position of the first kept row."""
        return 0 if self.before is not None or self.tensor is None else self.start

    @property
    def size(self) -> int:
        """The size of the kept rows in bytes, as they wait to be written."""
        return sum(part.nbytes for part in self.kept)

    @property
    def _on_cpu(self) -> bool:
        return self.tensor is None or on_cpu(self.tensor)

    def only_returned(self) -> None:
        self.before = self.after = None

    def only_counted(self) -> None:
        """Drop all rows and keep only their number."""
        self.count, self.tensor = self.rows, None
        self.only_returned()


@dataclass(slots=True)
class PendingFinish:
    """A finish in progress: the experts function has run, the indexer function may still run."""

    req: Any
    processor: Any  # the object whose method collects rows; it has the pools
    qid: int
    committed: int
    allocated: int
    experts: Collected = field(default_factory=Collected)
    indexer: Collected = field(default_factory=Collected)


def _experts_before(
    recorder: Recorder, self: Any, req: Any, *_: Any, **__: Any
) -> PendingFinish | None:
    recorder.asked = None
    return _begin(recorder, self, req)


def _experts_after(recorder: Recorder, finish: PendingFinish | None, _: None) -> None:
    if finish is None:
        return
    finish.experts = _collected(recorder, "experts", finish, "routed_experts")
    recorder.finishing = finish
    recorder.emit_later(partial(_emit, recorder, finish))


def _indexer_before(
    recorder: Recorder, self: Any, req: Any, *_: Any, **__: Any
) -> PendingFinish | None:
    recorder.asked = None
    finish = recorder.finishing
    if isinstance(finish, PendingFinish) and finish.req is req:
        return finish
    return _begin(recorder, self, req)


def _indexer_after(recorder: Recorder, finish: PendingFinish | None, _: None) -> None:
    if finish is None:
        return
    finish.indexer = _collected(recorder, "indexer", finish, "indexer_topk")
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


def _begin(recorder: Recorder, processor: Any, req: Any) -> PendingFinish | None:
    """Read the books of a finishing request. Return None if the request is not recorded."""
    access, qid = recorder.access(req), recorder.numbers.qid(req)
    if qid < 0:
        return None
    return PendingFinish(
        req,
        processor,
        qid,
        access.committed.of(req),
        access.allocated.of(req),
    )


def _collected(recorder: Recorder, which: str, finish: PendingFinish, attribute: str) -> Collected:
    tensor = getattr(finish.req, attribute, None)
    start, end = (NONE64, NONE64) if recorder.asked is None else recorder.asked
    if tensor is None:
        collected = Collected(0 if has_capturer(which) else NONE64, start)
    else:
        as_asked = tensor.shape[0] == end - start  # if not, the position of its rows is unknown
        collected = Collected(1, start if as_asked else NONE64, tensor)
    if recorder.choice.rows in (TAIL_TOO, FULL) and collected.state != NONE64:
        try:
            _add_outside(recorder, which, finish, collected)
        except Exception as error:  # noqa: BLE001 (still record the finish)
            collected.only_returned()
            recorder.failed(error)
    return collected


def _add_outside(
    recorder: Recorder, which: str, finish: PendingFinish, collected: Collected
) -> None:
    """Gather the rows that `--experts tail` or `full` asks for and the server did not return.

    This must be done now, because the release that follows frees their slots. No row is gathered
    twice. Rows of the prompt are left out on the decode side of a disaggregated server, because it
    never computed them.
    """
    pool_row, req = PoolRow.of(finish.processor, finish.req), finish.req
    if pool_row is None:
        return
    end = len(req.origin_input_ids) + len(req.output_ids) - 1
    whole = recorder.choice.rows == FULL and not recorder.run.decode_side
    if collected.state == 1 and collected.start != NONE64:
        if whole:
            collected.before = pool_row.rows(which, 0, collected.start)
        collected.after = pool_row.rows(which, collected.start + collected.rows, end)
    elif collected.state == 0 and whole:
        collected.after = pool_row.rows(which, 0, end)


def _emit(recorder: Recorder, finish: PendingFinish) -> None:
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
    if recorder.choice.rows == NO_ROWS:
        experts.only_counted()
        indexer.only_counted()
    size = _fitting(recorder, experts, indexer)
    stamp = recorder.stamp()
    recorder.queue(Kind.FINISH, (_pack, recorder, stamp, head, experts, indexer), size, stamp)


def _fitting(recorder: Recorder, experts: Collected, indexer: Collected) -> int:
    """Drop rows until the rest fits into the writer's memory, and return their size in bytes.

    An event without rows is better than no event.
    """
    has_room = recorder.writer.has_room
    if not has_room(experts.size + indexer.size):
        experts.only_returned()
        indexer.only_returned()
        if not has_room(experts.size + indexer.size):
            experts.only_counted()
            indexer.only_counted()
    return experts.size + indexer.size


def _statistics(recorder: Recorder, req: Any) -> tuple[int, ...]:
    """Return the columns of `schema.Finishes` from `spec_verify_ct` to `num_hidden_states`."""
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
    """On the writer's thread: pack the event, followed by its rows in the narrowest type."""
    values, blob = list(head), b""
    for collected in (experts, indexer):
        rows = _narrowed(recorder, collected)
        values += (collected.state, collected.start)
        values += (collected.rows if collected.state == 1 else NONE64, rows.rows if rows else 0)
        values += (collected.kept_from if rows else NONE64,)
        blob += pack_topk(rows)
    return recorder.pack(Kind.FINISH, stamp, values, (), blob)


def _narrowed(recorder: Recorder, collected: Collected) -> TopkRows | None:
    """Return the rows in the narrowest unsigned type that holds them, or None if there are none."""
    try:
        parts = [part.detach().numpy() for part in collected.kept]
        parts = [part.reshape(len(part), part.shape[1], -1) for part in parts if len(part)]
        if not parts:
            return None
        itemsize = max(_itemsize(int(part.min()), int(part.max())) for part in parts)
        data = b"".join(part.astype(f"<u{itemsize}").tobytes() for part in parts)
        _, layers, topk = parts[0].shape
        return TopkRows(itemsize, layers, topk, sum(map(len, parts)), data)
    except Exception as error:  # noqa: BLE001 (the writer has to go on)
        recorder.failed(error)
        return None


def _itemsize(low: int, high: int) -> int:
    """Return the bytes per value. Padding (-1, in indexer rows) wraps around, so it needs all four."""
    if low < 0:
        return 4
    return 1 if high < 1 << 8 else 2 if high < 1 << 16 else 4


PROBES = {
    "experts": Probe(_experts_before, _experts_after),
    "indexer": Probe(_indexer_before, _indexer_after),
    "topk": Probe(_topk_before, nothing_after),
}
