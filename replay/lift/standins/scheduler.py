"""The stand-ins of the scheduler side: the result processor, the future map, the row capturers."""

from __future__ import annotations

from typing import Any

from ..missing import Missing
from .base import UNKNOWN_LEN, Quiet, StandIn, known
from .server_args import Algorithm
from .vector import Vector


class Worker(StandIn):
    """The draft worker."""

    what = "self.draft_worker"

    def __init__(self) -> None:
        self.speculative_num_draft_tokens = 0  # set before each result

    def on_verify_complete_cpu(self, *_: object, **__: object) -> None:
        """Does nothing: this feeds the adaptive controller, whose decisions are recorded."""


class Scheduler(StandIn):
    """`Scheduler` up to 0.5.12, `SchedulerBatchResultProcessor` from 0.5.13 on."""

    what = "self"
    metrics_reporter = Quiet("self.metrics_reporter")

    def __init__(self) -> None:
        self.draft_worker = self.model_worker = Worker()
        self.req_to_token_pool = TokenPool()

    def abort_request(self, _: object) -> None:
        """Does nothing: an abort is a separate event."""


class FutureMap(StandIn):
    """Passes lengths from one step to the next, by request."""

    what = "future_map"
    publish_ready = None
    fwd_prepare_d2h_stream = None  # takes the code path without CUDA, which computes the same sums
    req_to_token = Quiet("future_map.req_to_token")

    def __init__(self, needs_cpu_seq_lens: bool | None, spec_algo: Algorithm) -> None:
        self.spec_algo = spec_algo
        self.needs_cpu_seq_lens = needs_cpu_seq_lens is not False
        self.new_seq_lens_buf = Relay()


class Relay(StandIn):
    """`new_seq_lens_buf`: the published lengths, indexed by request."""

    what = "future_map.new_seq_lens_buf"

    def __init__(self) -> None:
        self.published: dict[int, int] = {}

    def __getitem__(self, indices: Vector) -> Vector:
        return Vector(self.published.get(int(i), UNKNOWN_LEN) for i in indices)


class TokenPool(StandIn):
    """`req_to_token_pool`: one row per request, long enough for any request."""

    what = "req_to_token_pool"

    @property
    def req_to_token(self) -> TokenPool:
        return self

    def free(self, _: object) -> None:
        """Does nothing: the engine itself marks the row as released."""

    def __getitem__(self, at: Any) -> Any:
        return Span(0, UNKNOWN_LEN) if not isinstance(at, slice) else Span(0, UNKNOWN_LEN)[at]


class Span(StandIn):
    """Positions [start, stop) of one request's row."""

    what = "rows"

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, max(start, stop)

    def __getitem__(self, at: slice) -> Span:
        if at.step not in (None, 1):
            raise Missing("rows[::step]")
        start, stop, _ = at.indices(self.stop - self.start)
        return Span(self.start + start, self.start + stop)

    def cpu(self) -> Span:
        return self

    def clone(self) -> Span:
        return self

    @property
    def shape(self) -> tuple[int]:
        return (self.stop - self.start,)

    @property
    def known(self) -> bool:
        return known(self.start) and known(self.stop)


class _HostCache(StandIn):
    what = "host_cache"

    @property
    def buffer(self) -> _HostCache:
        return self

    def __getitem__(self, rows: Span) -> Span:
        return rows


class Capturer(StandIn):
    """Collects rows of routed experts or of the indexer: which rows, not their contents."""

    what = "capturer"
    host_cache = _HostCache()

    def get_host_cache(self) -> _HostCache:
        return self.host_cache
