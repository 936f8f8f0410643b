"""All recordings of a run, who of its schedulers is not among them, and why (standard library and what is in memory)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .manifest import Manifest
from .ranks import Group, Rank, rank_of
from .recording import Recording
from .schema import Kind


@dataclass(frozen=True, slots=True)
class Member:
    """What a run's overview tells of one recording."""

    path: Path
    run_id: str
    side: str  # prefill or decode, of a disaggregated server; else empty
    rank: Rank
    pid: int
    started: str
    steps: tuple[int, int] | None  # first and last forward_ct of an event; None: it has no events
    num_launches: int
    late: bool  # recording began after the server's first launch
    num_requests: int
    num_events: int
    num_dropped: int
    num_exceptions: int | None  # None: killed before it could say
    step_ns: tuple[int | None, int | None]  # p50, p99
    damage: str | None
    closed: bool  # the recorder reached its end
    made: tuple[str, ...]  # what was done since it was recorded: shrink, redact, ...


@dataclass(frozen=True, slots=True)
class Absent:
    """A scheduler that has no recording here. `why`: None where nobody says."""

    tp_rank: int
    left_out: bool
    why: str | None


@dataclass(frozen=True, slots=True)
class GroupOfRun:
    """One attention group: whoever of it is recorded says what all of it did."""

    group: Group
    side: str
    members: tuple[Member, ...]
    absent: tuple[Absent, ...]

    @property
    def missing(self) -> bool:
        return not self.members

    @property
    def ambiguous(self) -> bool:
        """Two processes have the same place: they are of different servers, or of lives of one that had the same numbers. Whose is
        whose is not recorded, nor of any use where there is one place."""
        ranks = {m.rank.tp_rank for m in self.members}
        lives = {(m.rank.tp_rank, m.pid, m.started * (len(ranks) > 1)) for m in self.members}
        return len(lives) > len(ranks)


@dataclass(frozen=True, slots=True)
class WholeRun:
    """The recordings of one run id, as far as they are here."""

    run_id: str
    members: tuple[Member, ...]
    hosts: tuple[str, ...]  # that left a manifest here
    groups: tuple[GroupOfRun, ...]
    unplaced: tuple[
        str, ...
    ]  # schedulers of which no more is known than why they were not recorded

    @property
    def alone(self) -> bool:
        """Whether there is nothing to be said beyond its one recording."""
        return len(self.members) == 1 and self.members[0].rank.alone and not self.hosts


def member_of(path: Path, recording: Recording) -> Member:
    run, stats, steps = recording.run, recording.stats, recording.events.iteration
    mode = run.server_args.get("disaggregation_mode")
    return Member(
        path=path,
        run_id=run.run_id,
        side=str(mode) if mode in ("prefill", "decode") else "",
        rank=rank_of(run),
        pid=run.pid,
        started=run.started,
        steps=(int(steps[0]), int(steps[-1])) if len(steps) else None,
        num_launches=len(recording.launches.launch),
        late=is_late(recording),
        num_requests=len(recording.rids),
        num_events=len(recording.events.kind),
        num_dropped=num_dropped(recording),
        num_exceptions=None if stats is None else stats.exceptions,
        step_ns=(None, None) if stats is None else (stats.step_ns_p50, stats.step_ns_p99),
        damage=recording.damage,
        closed=stats is not None and stats.closed,
        made=tuple(step.how for step in recording.derived),
    )


def is_late(recording: Recording) -> bool:
    """Whether the server had launched batches before the first one that is recorded: each one counts."""
    counts = recording.events.iteration[recording.event_of(Kind.LAUNCH)]
    return bool(len(counts)) and int(counts[0]) > 1


def num_dropped(recording: Recording) -> int:
    """Events that were lost while it was recorded; of what came before, for which a gap at its head stands, nobody knows how many."""
    gaps, stats, kinds = recording.gaps.dropped, recording.stats, recording.events.kind
    if len(kinds) and kinds[0] == Kind.GAP and is_late(recording):
        gaps = gaps[1:]
    return max(int(gaps.sum()), 0 if stats is None else stats.dropped)


def runs(members: Iterable[Member], manifests: Sequence[Manifest] = ()) -> list[WholeRun]:
    """By run id, in the order of their first recording; runs that a manifest alone tells of come last."""
    by_run: dict[str, list[Member]] = {}
    for member in members:
        by_run.setdefault(member.run_id, []).append(member)
    for manifest in manifests:
        by_run.setdefault(manifest.run_id, [])
    return [
        _whole(run_id, found, [one for one in manifests if one.run_id == run_id])
        for run_id, found in by_run.items()
    ]


def _whole(run_id: str, members: list[Member], manifests: list[Manifest]) -> WholeRun:
    said = [one for manifest in manifests for one in manifest.schedulers]
    told: dict[tuple[Group, int], Absent] = {}
    for one in said:
        if one.rank is not None:
            why = one.why or f"its journal {one.journal} became no recording that is here"
            place = (one.rank.group, one.rank.tp_rank)
            told[place] = Absent(one.rank.tp_rank, one.left_out, why)
    groups = []
    for side in sorted({member.side for member in members}) or [""]:
        here = [member for member in members if member.side == side]
        ranks = [m.rank for m in here] or [one.rank for one in said if one.rank is not None]
        groups += [_group(group, side, ranks[0], here, told) for group in _groups(ranks)]
    return WholeRun(
        run_id=run_id,
        members=tuple(
            sorted(members, key=lambda m: (m.side, m.rank.group, m.rank.tp_rank, m.path))
        ),
        hosts=tuple(manifest.host for manifest in manifests),
        groups=tuple(groups),
        unplaced=tuple(f"process {one.pid}: {one.why}" for one in said if one.rank is None),
    )


def _groups(ranks: Sequence[Rank]) -> list[Group]:
    """Those that any of the ranks says there should be, and those that there are."""
    return sorted({group for rank in ranks for group in (rank.group, *rank.groups())})


def _group(
    group: Group,
    side: str,
    rank: Rank,
    members: Sequence[Member],
    told: dict[tuple[Group, int], Absent],
) -> GroupOfRun:
    here = tuple(
        sorted(
            (m for m in members if m.rank.group == group), key=lambda m: (m.rank.tp_rank, m.path)
        )
    )
    there = {member.rank.tp_rank for member in here}
    absent = [
        told.get((group, tp), Absent(tp, False, None))
        for tp in rank.tp_ranks(group)
        if tp not in there
    ]
    return GroupOfRun(group, side, here, tuple(absent))
