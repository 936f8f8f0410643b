"""What all paths over one recording share, computed once and on demand."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...recorders.recording import Recording
from ...recorders.schema import NONE64, Kind
from ..cells import Cells, cells_of, same_cells
from ..lift.worker_pool import WorkerPool
from ..paths.rules import FinishRows
from ..quantity import Quantity
from ..tensors import column
from .lengths import lengths_of
from .sums import Sums, true_sums
from .touches import Touches, gaps_before, touches_of

T = TypeVar("T")


class Columns:
    """One recording as the engine needs it: cells, touches, true lengths.

    `workers` is the pool of worker processes that replay the recording, if there is one.
    """

    def __init__(self, recording: Recording, workers: WorkerPool | None = None) -> None:
        self.recording, self.workers = recording, workers
        self._computed: dict[Hashable, Any] = {}
        self._replayed: dict[Hashable, Any] = {}
        self._cells = _AllCells(recording)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` returned the first time.

        The 32 sets of fixes share most of their parts.
        """
        return _once(self._computed, key, make)

    def replayed(self, key: Hashable, make: Callable[[], T]) -> T:
        """Like `once`, for a replay that yields all quantities at once.

        `drop_computed` keeps these results.
        """
        return _once(self._replayed, key, make)

    def has_replayed(self, key: Hashable) -> bool:
        return key in self._replayed

    def drop_computed(self) -> None:
        """Drop all values computed so far, which take most of the memory.

        They are computed again if needed.
        """
        self._computed.clear()
        self._cells.clear()

    @property
    def cells(self) -> Mapping[Quantity, Cells]:
        return self._cells

    @cached_property
    def touches(self) -> Touches:
        return touches_of(self.recording)

    @cached_property
    def true_sums(self) -> Sums:
        return true_sums(self.recording, lengths_of(self.recording))

    @cached_property
    def finish_rows(self) -> FinishRows:
        """The finished requests as the rules read them."""
        finishes = self.recording.finishes
        output_len, finished_len = column(finishes.output_len), column(finishes.finished_len)
        start_len = column(finishes.start_len)
        return FinishRows(
            origin_len=column(finishes.origin_len),
            output_len=output_len,
            finished_len=torch.where(finished_len == NONE64, output_len, finished_len),
            requested=column(finishes.return_routed_experts) == 1,
            start_len=torch.where(start_len == NONE64, 0, start_len),
        )

    def touch_of(self, quantity: Quantity) -> Tensor:
        """Return for each cell of a committed length or counter the touch that set it (-1 if none, or lost in a gap)."""
        cells = self.cells[quantity]  # several quantities share these cells
        return self.once(("touch", id(cells)), lambda: self._touch_of(cells))

    def _touch_of(self, cells: Cells) -> Tensor:
        index = torch.full_like(cells.event, -1)
        recording, touches = self.recording, self.touches
        for kind, table in (
            (Kind.PREPARE, recording.prepare_rows),
            (Kind.RESULT, recording.result_rows),
        ):
            mine = cells.kind == kind
            index[mine] = touches.at(kind, len(table.qid))[cells.row[mine]]
        finish = cells.kind == Kind.FINISH
        last = touches.last_before(cells.qid[finish], cells.event[finish])
        index[finish] = torch.where(self._no_gap_since(last, cells.event[finish]), last, -1)
        return index

    def _no_gap_since(self, touch: Tensor, event: Tensor) -> Tensor:
        if not len(self.touches.epoch):
            return torch.zeros_like(touch, dtype=torch.bool)
        return self.touches.epoch[touch.clamp(min=0)] == gaps_before(self.recording, event)


def _once(made: dict[Hashable, Any], key: Hashable, make: Callable[[], T]) -> T:
    if key not in made:
        made[key] = make()
    found: T = made[key]
    return found


class _AllCells(dict[Quantity, Cells]):
    """Cells by quantity, each computed at first use.

    Quantities with values at the same places share one object.
    """

    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self._recording = recording

    def __missing__(self, quantity: Quantity) -> Cells:
        like = next((known for known in self if same_cells(known, quantity)), None)
        made = self[like] if like else cells_of(self._recording, quantity)
        self[quantity] = made
        return made
