"""Compare the ranks of a run that should agree, and list what could not be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..recorders.recording import Recording
from ..recorders.runs import GroupOfRun, Member, WholeRun
from .agreement import Agreement, agree


@dataclass(frozen=True, slots=True)
class Pair:
    """The first recorded rank of an attention group and another rank of the same group."""

    left: Member
    right: Member
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class InStep:
    """The ranks of DP attention.

    Each rank has its own requests, and in every step every rank launches a batch, possibly an idle
    one. `why_not` is the reason why the numbers of launches are not compared: recording did not
    begin and end on all ranks together.
    """

    members: tuple[Member, ...]
    why_not: str | None

    @property
    def differs(self) -> bool:
        return self.why_not is None and len({one.num_launches for one in self.members}) > 1


@dataclass(frozen=True, slots=True)
class RanksOfRun:
    """The comparison of one run.

    `not_compared` has a sentence for each recording that should agree but was not compared.
    """

    run: WholeRun
    pairs: tuple[Pair, ...]
    in_step: InStep | None
    not_compared: tuple[str, ...]

    @property
    def differs(self) -> bool:
        return any(pair.agreement.first for pair in self.pairs) or bool(
            self.in_step and self.in_step.differs
        )

    @property
    def says_anything(self) -> bool:
        return bool(self.pairs or self.in_step or self.not_compared)


def compare(run: WholeRun, load: Callable[[Path], Recording]) -> RanksOfRun:
    """Compare the ranks of a run.

    `load` reads a recording again, so that at most two are in memory at a time.
    """
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
    """Drop duplicates: a file that is named twice, or also through a link, is one recording."""
    by_file: dict[Path, Member] = {}
    for member in members:
        by_file.setdefault(member.path.resolve(), member)
    return by_file.values()


def _compare_group(
    group: GroupOfRun, load: Callable[[Path], Recording]
) -> tuple[list[Pair], list[str]]:
    """Compare the recordings that were made in the same way.

    A file made in another way does not prevent the others.
    """
    if group.ambiguous:
        names = ", ".join(member.path.name for member in group.members)
        why = f"several processes claim the same rank, so they belong to different servers: {names}"
        return [], [f"{why}. Record each server separately"]
    if _num_ranks(group.members) < 2:
        return [], []
    pairs: list[Pair] = []
    not_compared = [f"{one.path.name} was shrunk" for one in group.members if _shrunk(one)]
    for members in _made_alike(one for one in group.members if not _shrunk(one)):
        if _num_ranks(members) < 2:
            not_compared += [
                f"{one.path.name}: no other rank of its group was made in the same way"
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
    """Compare the first rank's recordings with all recordings of other ranks that share a step with them."""
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
    """Whether two recordings have a step in common."""
    if left.steps is None or right.steps is None:
        return False
    return max(left.steps[0], right.steps[0]) <= min(left.steps[1], right.steps[1])


def _in_step(groups: Sequence[GroupOfRun]) -> tuple[InStep | None, list[str]]:
    """Compare the launches of the DP ranks.

    Also return a sentence for each rank that is left out.
    """
    each = [
        _recordings_of(group.members)
        for group in groups
        if group.members and not group.side and not group.ambiguous
    ]
    if len(each) < 2 or not all(some[0].rank.dp_attention for some in each):
        return None, []
    not_compared = [
        f"several recordings of {some[0].rank.words}, and none of them holds all of its launches: "
        + ", ".join(one.path.name for one in some)
        for some in each
        if len(some) > 1
    ]
    leads = tuple(some[0] for some in each if len(some) == 1)
    if len(leads) < 2:
        return None, not_compared
    return InStep(leads, next(filter(None, map(_not_whole, leads)), None)), not_compared


def _recordings_of(members: Sequence[Member]) -> list[Member]:
    """Return the recordings of a group's first rank, the original ones if there are any.

    If there is more than one, each holds a part of what happened. Copies hold the same launches and
    are left out.
    """
    recorded = [one for one in members if not {"shrink", "redact"} & set(one.made)]
    distinct = {replace(one, path=Path()): one for one in reversed(_of_lead(recorded or members))}
    return sorted(distinct.values(), key=lambda one: one.path)


def _not_whole(member: Member) -> str | None:
    """Say why a recording does not hold all launches; None if it does."""
    name = member.path.name
    if _shrunk(member) or "sample" in member.made:
        return f"{name} holds only some of the requests"
    if member.num_dropped:
        return f"{name} lost {member.num_dropped} events"
    if member.damage or not member.closed:
        return f"{name} ends at the point where its process was killed"
    if member.late:
        return f"{name} began on a running server"
    if member.ended_early:
        return f"{name} ended before its server did"
    return None


def compare_all(runs: Sequence[WholeRun], load: Callable[[Path], Recording]) -> list[RanksOfRun]:
    """Compare the ranks of every run and return the results that have something to report."""
    return [found for run in runs if (found := compare(run, load)).says_anything]
