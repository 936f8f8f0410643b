"""Routed rows on their way to the journal.

They are packed in the narrowest type, and some are dropped first if there is no room.
"""

from __future__ import annotations

import pytest
import torch

from specdiff.recorders.capture.finish_probes import Collected, _fitting, _itemsize
from specdiff.recorders.capture.recorder import Recorder


@pytest.mark.parametrize(
    ("low", "high", "itemsize"),
    [(0, 255, 1), (0, 256, 2), (0, 65535, 2), (0, 65536, 4), (-1, 3, 4)],
)
def test_rows_take_the_narrowest_type_that_holds_them(low: int, high: int, itemsize: int) -> None:
    assert _itemsize(low, high) == itemsize


@pytest.mark.parametrize(
    ("returned", "more", "kept"), [(40, 40, [40, 40]), (40, 80, [40]), (120, 1, [])]
)
def test_rows_that_were_not_returned_are_dropped_first(
    returned: int, more: int, kept: list[int], recorder: Recorder
) -> None:
    """There is room for 2,000 bytes, and each row takes 20."""
    rows = Collected(1, 0, torch.zeros((returned, 1, 5), dtype=torch.int32))
    rows.after = torch.zeros((more, 1, 5), dtype=torch.int32)
    assert _fitting(recorder, rows, Collected()) == 20 * sum(kept)
    assert list(map(len, rows.kept)) == kept


def test_rows_that_are_only_counted_are_not_kept_in_memory() -> None:
    rows = Collected(1, 3, torch.zeros((20, 1, 1), dtype=torch.uint8))
    rows.only_counted()
    assert (rows.rows, rows.kept, rows.size, rows.tensor) == (20, [], 0, None)
