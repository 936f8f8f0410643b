"""The ranks of a run that should agree, held against each other; and what of a run is not compared at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..recorders.recording import Recording
from ..recorders.runs import GroupOfRun, Member, WholeRun
from .agreement import Agreement, agree


@dataclass(frozen=True, slots=True)
class Pair:
    """The first recorded rank of an attention group, and another one of it."""

    left: Member
    right: Member
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class InStep:
    """Ranks of DP attention: each has requests of its own, and in every step each of them launches a batch, if an idle one.

    `why_not`: the numbers of launches are not judged, as recording did not begin and end together.
    """

    members: tuple[Member, ...]
    why_not: str | None

    @property
    def parted(self) -> bool:
        return self.why_not is None and len({one.num_launches for one in self.members}) > 1


@dataclass(frozen=True, slots=True)
class RanksOfRun:
    """`not_compared`: sentences on those that should agree and were not held against each other."""

    run: WholeRun
    pairs: tuple[Pair, ...]
    in_step: InStep | None
    not_compared: tuple[str, ...]

    @property
    def parted(self) -> bool:
        return any(pair.agreement.first for pair in self.pairs) or bool(
            self.in_step and self.in_step.parted
        )

    @property
    def says_anything(self) -> bool:
        return bool(self.pairs or self.in_step or self.not_compared)


def compare(run: WholeRun, load: Callable[[Path], Recording]) -> RanksOfRun:
    """`load` reads a recording again: no more than two are held at a time."""
    pairs: list[Pair] = []
    not_compared: list[str] = []
    for group in run.groups:
        if why := _why_not(group):
            not_compared.append(why)
            continue
        for lead in _of_lead(group):
            found = [
                other for other in group.members if other.rank != lead.rank and _meet(lead, other)
            ]
            if found:
                left = load(lead.path)
                pairs += [Pair(lead, other, agree(left, load(other.path))) for other in found]
    met = {member for pair in pairs for member in (pair.left, pair.right)}
    not_compared += [
        f"{member.path.name} has no step in common with a recording of its group's first rank"
        for group in run.groups
        if not _why_not(group) and len({m.rank for m in group.members}) > 1
        for member in group.members
        if member not in met
    ]
    return RanksOfRun(run, tuple(pairs), _in_step(run), tuple(not_compared))


def _of_lead(group: GroupOfRun) -> list[Member]:
    return [one for one in group.members if one.rank == group.members[0].rank]


def _meet(left: Member, right: Member) -> bool:
    if left.steps is None or right.steps is None:
        return False
    return max(left.steps[0], right.steps[0]) <= min(left.steps[1], right.steps[1])


def _why_not(group: GroupOfRun) -> str | None:
    """None where the ranks of a group can be compared, or there is but one."""
    if len({member.rank for member in group.members}) < 2 and not group.ambiguous:
        return None
    names = ", ".join(member.path.name for member in group.members)
    if group.ambiguous:
        return (
            f"several processes say that they are the same rank, so they are of several servers: {names}. "
            "Record each server by itself"
        )
    if len({member.made for member in group.members}) > 1 or any(
        "shrink" in member.made for member in group.members
    ):
        return f"they are not as recorded, or not made alike: {names}"
    return None


def _in_step(run: WholeRun) -> InStep | None:
    leads = tuple(_each_dp_rank(run))
    if len(leads) < 2 or not all(lead.rank.dp_attention for lead in leads):
        return None
    return InStep(leads, next(filter(None, map(_not_whole, leads)), None))


def _each_dp_rank(run: WholeRun) -> Iterator[Member]:
    """The one recording of each; none where a group has several, which are parts of what happened."""
    for group in run.groups:
        leads = _of_lead(group) if group.members else []
        if len(leads) == 1 and not group.side and not group.ambiguous:
            yield leads[0]


def _not_whole(member: Member) -> str | None:
    name = member.path.name
    if "shrink" in member.made or "sample" in member.made:
        return f"{name} holds a choice of its requests"
    if member.num_dropped:
        return f"{name} lost {member.num_dropped} events"
    if member.damage or not member.closed:
        return f"{name} ends where its process was killed"
    if member.late:
        return f"{name} began on a running server"
    return None


def compare_all(runs: Sequence[WholeRun], load: Callable[[Path], Recording]) -> list[RanksOfRun]:
    return [found for run in runs if (found := compare(run, load)).says_anything]
