"""The ranks of a server's schedulers, and which of them keep the same books (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .run import Run


class Group(NamedTuple):
    """An attention group: schedulers that get the same requests and keep the same books."""

    dp_rank: int
    pp_rank: int


@dataclass(frozen=True, slots=True)
class Rank:
    """The position of one scheduler in its server.

    `dp_rank` is None if there is one replica. `dp_size` counts replicas, or ranks of DP attention.
    """

    tp_rank: int
    tp_size: int
    dp_rank: int | None
    dp_size: int
    pp_rank: int
    pp_size: int
    dp_attention: bool

    @property
    def group(self) -> Group:
        return Group(self.dp_rank or 0, self.pp_rank)

    @property
    def alone(self) -> bool:
        """Whether this is the server's only scheduler."""
        return self.tp_size * self.dp_size * self.pp_size == 1

    def groups(self) -> list[Group]:
        """Return all attention groups of the server, ordered by dp rank and pp rank."""
        return [Group(dp, pp) for dp in range(self.dp_size) for pp in range(self.pp_size)]

    def tp_ranks(self, group: Group) -> range:
        """Return the tp ranks of an attention group.

        With DP attention, each group is a contiguous part of the tensor-parallel ranks.
        """
        if not self.dp_attention or self.dp_size == 1:
            return range(self.tp_size)
        size = max(1, self.tp_size // self.dp_size)
        return range(group.dp_rank * size, (group.dp_rank + 1) * size)

    @property
    def words(self) -> str:
        dp = f"dp {self.dp_rank}, " if self.dp_size > 1 else ""
        pp = f"pp {self.pp_rank}, " if self.pp_size > 1 else ""
        return f"{dp}{pp}tp {self.tp_rank}"


def rank_of(run: Run) -> Rank:
    return Rank(
        tp_rank=run.tp_rank,
        tp_size=run.tp_size,
        dp_rank=run.dp_rank,
        dp_size=run.dp_size,
        pp_rank=run.pp_rank,
        pp_size=run.pp_size,
        dp_attention=bool(run.server_args.get("enable_dp_attention")),
    )
