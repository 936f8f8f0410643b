"""The ranks of a run that should agree, held against each other; and what of a run is not compared at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
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
    groups = [replace(group, members=tuple(_distinct(group.members))) for group in run.groups]
    pairs: list[Pair] = []
    not_compared: list[str] = []
    for group in groups:
        found, why_not = _compare_group(group, load)
        pairs += found
        not_compared += why_not
    in_step, why_not = _in_step(groups)
    return RanksOfRun(run, tuple(pairs), in_step, (*not_compared, *why_not))


def _distinct(members: Iterable[Member]) -> Iterable[Member]:
    """A file that was named twice, or through a link, is one recording."""
    by_file: dict[Path, Member] = {}
    for member in members:
        by_file.setdefault(member.path.resolve(), member)
    return by_file.values()


def _compare_group(
    group: GroupOfRun, load: Callable[[Path], Recording]
) -> tuple[list[Pair], list[str]]:
    """Those that were made alike are held against each other: a file of another make keeps none from being compared."""
    if group.ambiguous:
        names = ", ".join(member.path.name for member in group.members)
        why = f"several processes say that they are the same rank, so they are of several servers: {names}"
        return [], [f"{why}. Record each server by itself"]
    if _num_ranks(group.members) < 2:
        return [], []
    pairs: list[Pair] = []
    not_compared = [f"{one.path.name} was shrunk" for one in group.members if _shrunk(one)]
    for members in _made_alike(one for one in group.members if not _shrunk(one)):
        if _num_ranks(members) < 2:
            not_compared += [
                f"{one.path.name}: there is no other rank of its group that was made as it was"
                for one in members
            ]
            continue
        found = _pairs(members, load)
        met = {member for pair in found for member in (pair.left, pair.right)}
        not_compared += [
            f"{member.path.name} has no step in common with a recording of its group's first rank"
            for member in members
            if member not in met
        ]
        pairs += found
    return pairs, not_compared


def _num_ranks(members: Iterable[Member]) -> int:
    return len({member.rank for member in members})


def _shrunk(member: Member) -> bool:
    return "shrink" in member.made


def _made_alike(members: Iterable[Member]) -> Iterable[list[Member]]:
    found: dict[tuple[str, ...], list[Member]] = {}
    for member in members:
        found.setdefault(member.made, []).append(member)
    return found.values()


def _pairs(members: Sequence[Member], load: Callable[[Path], Recording]) -> list[Pair]:
    pairs: list[Pair] = []
    for lead in _of_lead(members):
        found = [other for other in members if other.rank != lead.rank and _meet(lead, other)]
        if found:
            left = load(lead.path)
            pairs += [Pair(lead, other, agree(left, load(other.path))) for other in found]
    return pairs


def _of_lead(members: Sequence[Member]) -> list[Member]:
    return [one for one in members if one.rank == members[0].rank]


def _meet(left: Member, right: Member) -> bool:
    if left.steps is None or right.steps is None:
        return False
    return max(left.steps[0], right.steps[0]) <= min(left.steps[1], right.steps[1])


def _in_step(groups: Sequence[GroupOfRun]) -> tuple[InStep | None, list[str]]:
    """And sentences on the dp ranks that were left out of it."""
    each = [
        _recordings_of(group.members)
        for group in groups
        if group.members and not group.side and not group.ambiguous
    ]
    if len(each) < 2 or not all(some[0].rank.dp_attention for some in each):
        return None, []
    not_compared = [
        f"several recordings of {some[0].rank.words}, of which none holds all of its launches: "
        + ", ".join(one.path.name for one in some)
        for some in each
        if len(some) > 1
    ]
    leads = tuple(some[0] for some in each if len(some) == 1)
    if len(leads) < 2:
        return None, not_compared
    return InStep(leads, next(filter(None, map(_not_whole, leads)), None)), not_compared


def _recordings_of(members: Sequence[Member]) -> list[Member]:
    """Those of a group's first rank, as recorded if there are such; more than one: each is a part of what happened.

    A copy tells the same of its launches, and is left out.
    """
    recorded = [one for one in members if not {"shrink", "redact"} & set(one.made)]
    told = {replace(one, path=Path()): one for one in reversed(_of_lead(recorded or members))}
    return sorted(told.values(), key=lambda one: one.path)


def _not_whole(member: Member) -> str | None:
    name = member.path.name
    if _shrunk(member) or "sample" in member.made:
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
