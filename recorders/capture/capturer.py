"""The server's own top-k capturers: whether there is one, and rows that the server did not return."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from .probe import unhooked
from .reading import on_cpu

_MODULES = {
    "experts": (
        "sglang.srt.state_capturer.routed_experts",
        "sglang.srt.layers.moe.routed_experts_capturer",
    ),
    "indexer": ("sglang.srt.state_capturer.indexer_topk",),
}


def capturer_of(which: str) -> Any:
    """Return this process's capturer, or None if it collects no such rows.

    Up to 0.5.11, sglang uses a no-op object if it collects none.
    """
    for name in _MODULES[which]:
        get = getattr(sys.modules.get(name), f"get_global_{which}_capturer", None)
        if get is not None:
            capturer = get()
            noop = type(capturer).__name__.endswith("Noop")
            return None if noop else capturer
    return None


def has_capturer(which: str) -> bool:
    return capturer_of(which) is not None


@dataclass(frozen=True, slots=True)
class PoolRow:
    """The row of sglang's `req_to_token_pool` that lists the KV slots of a finishing request.

    The slots belong to the request until its release. Up to 0.5.18, the index of the row is on the
    request, later on its `kv`.
    """

    pool: Any
    index: int

    @classmethod
    def of(cls, processor: Any, req: Any) -> PoolRow | None:
        """Return the row of a request, or None if it has none (any more).

        `processor` is the object whose method collects the request's rows.
        """
        index = getattr(req, "req_pool_idx", None)
        if index is None:
            index = getattr(getattr(req, "kv", None), "req_pool_idx", None)
        pool = getattr(processor, "req_to_token_pool", None)
        return cls(pool, index) if pool is not None and isinstance(index, int) else None

    def rows(self, which: str, start: int, end: int) -> Any:
        """Return rows [start, end), gathered by sglang's own function.

        Return None if this release's function cannot do that, or returns a different number of rows.

        Up to 0.5.11, the function (`get_routed_experts`) takes no start: it could only return all
        rows again. Those servers return all the rows they have, so there are no others to get.
        """
        capturer = capturer_of(which)
        get = getattr(type(capturer), "get_topk", None)
        if get is None or end <= start:
            return None
        rows = unhooked(get)(
            capturer,
            req_pool_idx=self.index,
            seqlen=end + 1,
            req_to_token_pool=self.pool,
            start_len=start,
        )
        return rows if on_cpu(rows) and len(rows) == end - start else None
