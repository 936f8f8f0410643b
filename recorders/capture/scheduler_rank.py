"""A scheduler's rank in its server, and whether another rank keeps the same books."""

from __future__ import annotations

from typing import Any

from .describe import parallel


def rank_of(scheduler: Any) -> dict[str, int | bool | None]:
    """Return the fields of `ranks.Rank` for a scheduler."""
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
    """Return why a scheduler is not recorded by default, or None if it is.

    The first rank of each attention group (attn_tp_rank 0, attn_cp_rank 0) is recorded. It receives
    the requests and passes them on to the others of its group, which then keep the same books
    (`recv_requests`, the same in every release). If this sglang does not have these ranks, the
    scheduler is recorded, too.
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
