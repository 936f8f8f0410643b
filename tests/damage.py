"""Random damage of the kinds that disks, file systems and copies do.

A seed makes it repeatable; a phrase describes it.
"""

from __future__ import annotations

import random
from collections.abc import Callable

PAGE = 4096

DamagedBytes = tuple[bytes, str]  # the damaged bytes, and what was done


def damaged(data: bytes, chance: random.Random) -> DamagedBytes:
    """Damage `data` once. The result always differs from `data`."""
    while True:
        broken, what = chance.choice(KINDS)(data, chance)
        if broken != data:
            return broken, what


def _cut(data: bytes, chance: random.Random) -> DamagedBytes:
    size = chance.randrange(len(data))
    return data[:size], f"cut at {size}"


def _bit(data: bytes, chance: random.Random) -> DamagedBytes:
    at, bit = chance.randrange(len(data)), chance.randrange(8)
    return put(data, at, bytes([data[at] ^ 1 << bit])), f"bit {bit} of byte {at}"


def _byte(data: bytes, chance: random.Random) -> DamagedBytes:
    at = chance.randrange(len(data))
    return put(data, at, chance.randbytes(1)), f"byte {at}"


def _burst(data: bytes, chance: random.Random) -> DamagedBytes:
    at, size = chance.randrange(len(data)), chance.randrange(2, 64)
    return put(data, at, chance.randbytes(size))[: len(data)], f"{size} bytes at {at}"


def _page_of_zeros(data: bytes, chance: random.Random) -> DamagedBytes:
    at = chance.randrange(0, len(data), PAGE)
    return put(data, at, bytes(min(PAGE, len(data) - at))), f"page at {at} is zeros"


def _zeros_to_the_end(data: bytes, chance: random.Random) -> DamagedBytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes(len(data) - at), f"zeros from {at} on"


def _halves_of_the_tail_swapped(data: bytes, chance: random.Random) -> DamagedBytes:
    at, middle = sorted(chance.sample(range(len(data)), 2))
    return data[:at] + data[middle:] + data[at:middle], f"tail from {at} on swapped at {middle}"


def _block_twice(data: bytes, chance: random.Random) -> DamagedBytes:
    size = min(chance.choice((512, PAGE)), len(data) // 3)
    at, to = chance.randrange(len(data) - size), chance.randrange(len(data) - size)
    return put(data, to, data[at : at + size]), f"{size} bytes of {at} again at {to}"


def _block_inserted(data: bytes, chance: random.Random) -> DamagedBytes:
    size = min(chance.choice((512, PAGE)), len(data) // 3)
    at = chance.randrange(len(data) - size)
    return data[: at + size] + data[at:], f"{size} bytes of {at} inserted after it"


def _block_left_out(data: bytes, chance: random.Random) -> DamagedBytes:
    size = min(chance.choice((1, 512, PAGE)), len(data) // 3)
    at = chance.randrange(len(data) - size)
    return data[:at] + data[at + size :], f"{size} bytes at {at} left out"


def put(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


KINDS: tuple[Callable[[bytes, random.Random], DamagedBytes], ...] = (
    _cut,
    _bit,
    _byte,
    _burst,
    _page_of_zeros,
    _zeros_to_the_end,
    _halves_of_the_tail_swapped,
    _block_twice,
    _block_inserted,
    _block_left_out,
)
