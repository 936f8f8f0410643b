"""The torch stand-in for the kernel that allocates pages puts every slot where sglang's paged allocator expects it."""

from __future__ import annotations

from types import ModuleType

import torch
from hypothesis import given
from hypothesis import strategies as st

from specdiff.fixtures.rig.workarounds import _paged_allocator

Lengths = list[tuple[int, int]]


@given(st.lists(st.tuples(st.integers(0, 70), st.integers(0, 70)), min_size=1), st.integers(1, 20))
def test_slots_fill_the_last_page_and_then_whole_pages(lengths: Lengths, size: int) -> None:
    module = ModuleType("allocator")
    module.__dict__["alloc_extend_kernel"] = None
    _paged_allocator(module)
    starts = torch.tensor([start for start, _ in lengths])
    ends = starts + torch.tensor([more for _, more in lengths])
    used = [-(-start // size) for start, _ in lengths]  # pages that each request already has
    held = [list(range(1 + sum(used[:i]), 1 + sum(used[: i + 1]))) for i in range(len(used))]
    last = [held[i][-1] * size + (s - 1) % size if s else -1 for i, s in enumerate(starts.tolist())]
    free = torch.arange(1 + sum(used), 1 + sum(used) + 2000)
    out = torch.full((int((ends - starts).sum()),), -1)
    args = (starts, ends, torch.tensor(last), free, out, 0, size, 0)
    module.__dict__["alloc_extend_kernel"][(len(lengths),)](*args)

    slots, pages = out.tolist(), free.tolist()
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        mine, slots = slots[: end - start], slots[end - start :]
        table = held[i] + [pages.pop(0) for _ in range(-(-end // size) - used[i])]
        assert mine == [table[p // size] * size + p % size for p in range(start, end)]
    assert slots == []
