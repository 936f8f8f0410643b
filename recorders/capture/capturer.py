"""The server's own top-k capturers: whether there is one, and the rows that it holds but the server did not return."""

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
    """None where this process collects no such rows (up to 0.5.11 a no-op object stands for that)."""
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
class Slot:
    """Where the server keeps which KV slots a finishing request has; they are its own until its release.

    Up to 0.5.18 a request itself knows its row in that pool, then its `kv` does.
    """

    pool: Any
    index: int

    @classmethod
    def of(cls, processor: Any, req: Any) -> Slot | None:
        """None where this request has none (any more). `processor`: whose method collects its rows."""
        index = getattr(req, "req_pool_idx", None)
        if index is None:
            index = getattr(getattr(req, "kv", None), "req_pool_idx", None)
        pool = getattr(processor, "req_to_token_pool", None)
        return cls(pool, index) if pool is not None and isinstance(index, int) else None

    def rows(self, which: str, start: int, end: int) -> Any:
        """Rows [start, end), as sglang's own function gathers them; None where this release's cannot, or has others.

        Up to 0.5.11 that function (`get_routed_experts`) knows no start: only all rows again could be asked of it. Those
        servers return all they have, so nothing is outside.
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
