"""The accounting rules as one value.

The defaults are the old books (sglang 0.5.10); each fix replaces some of them.

All callables work on columns: int64 or bool tensors with one entry per row. They use only tensor
methods, so that this module does not import torch: whatever names a path imports the fixes and
should not have to wait for torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class StaleRows:
    """Results that arrived for a request that had already finished or been retracted.

    `accepted` is the number of tokens in the result, bonus included. `retracted` is False if the
    request had finished. `claim` is the number of slots that a prepare of this path claims. The
    claim is still open for a finished request and void for a retracted one.
    """

    accepted: Tensor
    retracted: Tensor
    claim: int


@dataclass(frozen=True, slots=True)
class FinishRows:
    """Finished requests.

    Lengths are in tokens; `finished_len` equals `output_len` if sglang's is None.
    """

    origin_len: Tensor
    output_len: Tensor
    finished_len: Tensor
    requested: Tensor
    start_len: Tensor


@dataclass(frozen=True, slots=True)
class RowRange:
    """Rows [start, end) collected for each finish for which `collected` is True."""

    collected: Tensor
    start: Tensor
    end: Tensor


def apply_stale(rows: StaleRows) -> Tensor:
    """Old: a stale result is applied like any other."""
    return rows.accepted - rows.claim


def raw_seqlen(rows: FinishRows) -> Tensor:
    """Old: everything that was generated, including the overshoot after the stop."""
    return rows.origin_len + rows.output_len


def all_rows(rows: FinishRows, seqlen: Tensor) -> RowRange:
    """Old: rows [0, seqlen - 1) for every request, whether requested or not."""
    start = seqlen.new_zeros(seqlen.shape)
    return RowRange(seqlen.new_ones(seqlen.shape).bool(), start, (seqlen - 1).clamp(min=0))


@dataclass(frozen=True, slots=True)
class Rules:
    """One consistent set of books.

    The defaults are those of sglang 0.5.10; docs/books.md lists the eras.
    """

    # kv_committed_len += claim at each prepare; a live result then adds accepted - claim
    claim: int = 0
    stale_delta: Callable[[StaleRows], Tensor] = apply_stale
    stale_counts: bool = True  # stale results increment spec_verify_ct and spec_accepted_drafts
    # filter and merge leave seq_lens_sum None; it is computed before the forward
    lazy_sums: bool = False
    seqlen: Callable[[FinishRows], Tensor] = raw_seqlen
    expert_rows: Callable[[FinishRows, Tensor], RowRange] = all_rows
