"""The types of a law and of the outcome of checking it."""

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
    """The places where a law was checked: int64 columns, one entry per place.

    The law holds at a place if `low` <= `found` <= `high`. `qid` is -1 for a whole batch. `counted`
    is an index into `names`: which quantity `found` is a value of.
    """

    names: tuple[str, ...]  # quantities, columns, or expressions over them
    event: Tensor
    qid: Tensor
    found: Tensor
    low: Tensor
    high: Tensor
    counted: Tensor

    @property
    def holds(self) -> Tensor:
        return (self.low <= self.found) & (self.found <= self.high)

    def certain(self, known: Tensor) -> Tensor:
        """Return where the outcome is certain. `known`: where the limits are.

        Elsewhere `high` is the most that could be allowed, so only a breach of it is certain.
        """
        return known | (self.found > self.high)

    def some(self, which: Tensor) -> Places:
        """Return some of the places: `which` is a tensor of indices or a mask."""
        return Places(self.names, *(getattr(self, name)[which] for name in _COLUMNS))


_COLUMNS = ("event", "qid", "found", "low", "high", "counted")


def within(
    name: str, event: Tensor, qid: Tensor, found: Tensor, low: Tensor, high: Tensor
) -> Places:
    """Return places at which `found` must be in [`low`, `high`]."""
    return Places((name,), event, qid, found, low, high, torch.zeros_like(event))


def exactly(name: str, event: Tensor, qid: Tensor, found: Tensor, expected: Tensor) -> Places:
    """Return places at which `found` must equal `expected`."""
    return within(name, event, qid, found, expected, expected)


def together(parts: list[Places]) -> Places:
    """Merge the places of several checks, in event order."""
    names: tuple[str, ...] = ()
    numbered = []
    for part in parts:
        numbered.append(replace(part, counted=part.counted + len(names)))
        names += part.names
    columns = (torch.cat([getattr(part, name) for part in numbered]) for name in _COLUMNS)
    merged = Places(names, *columns)
    return merged.some(torch.argsort(merged.event, stable=True))


def no_places() -> Places:
    """Return no places: the law was not checked."""
    return Places((), *(torch.zeros(0, dtype=torch.int64) for _ in _COLUMNS))


@dataclass(frozen=True, slots=True)
class Needs:
    """What must have been recorded for a law to be checked.

    event: what must have happened, in words.
    occurs: counts how often it happened in a recording.
    quantities: quantities whose values must be captured.
    observed_only: the law is about numbers that only the server itself has.
    sites: hooks that must be attached; without them only a part would be checked, and the law
        could seem to hold.
    tables: tables of the recording that older format versions do not have.
    start: what is allowed depends on the start_len that clients asked for.
    """

    event: str
    occurs: Callable[[Recording], int]
    quantities: tuple[Quantity, ...] = ()
    observed_only: bool = False
    sites: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    start: bool = False


@dataclass(frozen=True, slots=True)
class KnownViolation:
    """A known upstream violation, deliberate or not fixed yet. It is reported but does not count.

    `where` says in words which releases have it. `covers` returns a mask over the places: those whose
    breach this violation explains.
    """

    reason: str
    where: str
    covers: Callable[[Columns, Ledger, Places], Tensor]


def anywhere(_: Columns, __: Ledger, places: Places) -> Tensor:
    """Cover every place."""
    return torch.ones_like(places.event, dtype=torch.bool)


@dataclass(frozen=True, slots=True)
class Law:
    """A law. `name` is used in configuration and reports; `statement` says the law in words.

    `related` lists the pull requests that broke it, fixed it or concern it.
    """

    name: str
    statement: str
    related: tuple[int, ...]
    check: Callable[[Columns, Ledger], Places]
    needs: Needs
    known: KnownViolation | None = None


class State(str, Enum):
    """The state of a law after a check."""

    HOLDS = "holds"
    BROKEN = "broken"
    KNOWN = "known violation"
    SILENCED = "silenced"
    NOT_EXERCISED = "not exercised"


@dataclass(frozen=True, slots=True)
class Breach:
    """One place where a law does not hold.

    `counted` names the value that was checked, `found` is that value, and the law allows `low` to
    `high`.
    """

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
class LawOutcome:
    """The outcome of checking one law.

    num_broken: number of breaches, known violations included.
    first: the first breach that is not a known violation; if all are known, the first one.
    why_not_exercised: if the law was not exercised, the reason.
    known: if a known violation was seen, its reason.
    left_out: which places were left out because something was not captured.
    """

    law: Law
    state: State
    num_checked: int
    num_broken: int
    first: Breach | None
    why_not_exercised: str | None = None
    known: str | None = None
    left_out: str | None = None
