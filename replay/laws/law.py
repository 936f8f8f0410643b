"""What a law is, and what comes of checking it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

import torch
from torch import Tensor

from ...recorders.recording import Recording
from ...recorders.schema import Kind
from ..columns.shared import Columns
from ..ledger import Ledger
from ..quantity import Quantity


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where a law was checked: int64 columns, one entry per place.

    `qid`: -1 for a whole batch. The law holds where `found` lies in [`low`, `high`]. `counted`: which of `names` it is of.
    """

    names: tuple[str, ...]  # quantities, columns, or what is summed up of them
    event: Tensor
    qid: Tensor
    found: Tensor
    low: Tensor
    high: Tensor
    counted: Tensor

    @property
    def holds(self) -> Tensor:
        return (self.low <= self.found) & (self.found <= self.high)

    def some(self, which: Tensor) -> Places:
        """Those at these indices, or where this is true."""
        return Places(self.names, *(getattr(self, name)[which] for name in _COLUMNS))


_COLUMNS = ("event", "qid", "found", "low", "high", "counted")


def within(
    name: str, event: Tensor, qid: Tensor, found: Tensor, low: Tensor, high: Tensor
) -> Places:
    return Places((name,), event, qid, found, low, high, torch.zeros_like(event))


def exactly(name: str, event: Tensor, qid: Tensor, found: Tensor, expected: Tensor) -> Places:
    return within(name, event, qid, found, expected, expected)


def together(parts: list[Places]) -> Places:
    """All places of several checks, in event order."""
    names: tuple[str, ...] = ()
    told = []
    for part in parts:
        told.append(replace(part, counted=part.counted + len(names)))
        names += part.names
    columns = (torch.cat([getattr(part, name) for part in told]) for name in _COLUMNS)
    made = Places(names, *columns)
    return made.some(torch.argsort(made.event, stable=True))


def nowhere() -> Places:
    return Places((), *(torch.zeros(0, dtype=torch.int64) for _ in _COLUMNS))


@dataclass(frozen=True, slots=True)
class Needs:
    """What must have been recorded for a law to be checked at all.

    `event`: what must have happened, in words; `occurs`: how often it did. `quantities`: whose values must be captured.
    `observed_only`: the law is about numbers that only the server itself has. `sites`: hooks without which it would be checked
    in part only, and seem to hold. `tables`: which some version added.
    """

    event: str
    occurs: Callable[[Recording], int]
    quantities: tuple[Quantity, ...] = ()
    observed_only: bool = False
    sites: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """An upstream violation that is known, and not repaired or on purpose: such a breach is reported, not judged.

    `covers`: which places' breaches it explains (bool, one per place); `where`: in which releases, in words.
    """

    reason: str
    where: str
    covers: Callable[[Columns, Ledger, Places], Tensor]


def anywhere(_: Columns, __: Ledger, places: Places) -> Tensor:
    """Covers every place."""
    return torch.ones_like(places.event, dtype=torch.bool)


@dataclass(frozen=True, slots=True)
class Law:
    """`name`: what configuration and reports call it. `related`: the pull requests that broke, repaired or bear on it."""

    name: str
    statement: str
    related: tuple[int, ...]
    check: Callable[[Columns, Ledger], Places]
    needs: Needs
    known: Known | None = None


class State(str, Enum):
    HOLDS = "holds"
    BROKEN = "broken"
    KNOWN = "known violation"
    SILENCED = "silenced"
    NOT_EXERCISED = "not exercised"


@dataclass(frozen=True, slots=True)
class Breach:
    """One place where a law does not hold. `counted`: what `found` is of; `low`, `high`: what the law allows of it."""

    event: int
    kind: Kind
    step: int
    qid: int | None  # None: a whole batch
    rid: str | None
    counted: str
    found: int
    low: int
    high: int

    @property
    def expected(self) -> str:
        if self.low == self.high:
            return str(self.low)
        return f"at most {self.high}" if self.found > self.high else f"at least {self.low}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """`num_broken`: known violations among them; `first`: the first breach that is none, else the first.

    `idle`: where the law was not exercised, why; `known`: where a known violation was seen, which.
    """

    law: Law
    state: State
    num_checked: int
    num_broken: int
    first: Breach | None
    idle: str | None = None
    known: str | None = None
