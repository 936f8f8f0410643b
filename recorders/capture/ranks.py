"""Which place among its server's schedulers one has, and whether another keeps the same books."""

from __future__ import annotations

from typing import Any

from .describe import parallel


def rank_of(scheduler: Any) -> dict[str, int | bool | None]:
    """As `ranks.Rank` takes it."""
    args = scheduler.server_args
    return {
        "tp_rank": parallel(scheduler, "tp_rank") or 0,
        "tp_size": parallel(scheduler, "tp_size") or 1,
        "dp_rank": parallel(scheduler, "dp_rank"),
        "dp_size": parallel(scheduler, "num_dp_ranks") or parallel(scheduler, "dp_size") or 1,
        "pp_rank": parallel(scheduler, "pp_rank") or 0,
        "pp_size": parallel(scheduler, "pp_size") or 1,
        "dp_attention": bool(getattr(args, "enable_dp_attention", False)),
    }


def why_not_this_rank(scheduler: Any) -> str | None:
    """None for the first rank of an attention group, and where this sglang does not say who that is.

    The first one (attn_tp_rank 0, attn_cp_rank 0) takes requests in and hands them on to the others of its group, all of
    which then keep the same books (`recv_requests`, the same in every release).
    """
    for name in ("attn_tp_rank", "attn_cp_rank"):
        rank = parallel(scheduler, name)
        if rank:
            own = parallel(scheduler, "tp_rank")
            return (
                f"tp rank {own} ({name} {rank}) keeps the same books as the first rank of its attention group; "
                "--all-ranks records it too"
            )
    return None
