"""Group recordings into runs, and find out which schedulers of a run are missing and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .ranks import Group, Rank, rank_of
from .recording import Recording
from .run_manifest import RunManifest, SchedulerEntry
from .schema import Kind

_Place = tuple[Group, int]  # a tp rank of an attention group


@dataclass(frozen=True, slots=True)
class Member:
    """One recording, as the overview of a run shows it."""

    path: Path
    run_id: str
    side: str  # prefill or decode (of a disaggregated server), or empty
    rank: Rank
    pid: int
    started: str
    steps: tuple[int, int] | None  # first and last forward_ct of an event; None: it has no events
    num_launches: int
    late: bool  # recording began after the server's first launch
    num_requests: int
    num_events: int
    num_dropped: int
    num_exceptions: int | None  # None: the process was killed before it wrote its statistics
    step_ns: tuple[int | None, int | None]  # p50, p99
    damage: str | None
    closed: bool  # the recorder finished normally
    ended_early: bool  # before its server did
    made: tuple[str, ...]  # what was done to the recording since: shrink, redact, ...


@dataclass(frozen=True, slots=True)
class Absent:
    """A scheduler of which a recording, or every one, is not here.

    It was recorded if it has `journals`. Otherwise it was left out, or `why` says what failed, or
    no manifest tells.
    """

    tp_rank: int
    left_out: bool  # not recorded on purpose
    why: str | None  # why it was not recorded; None: it was, or no manifest says
    journals: tuple[str, ...] = ()  # that it wrote, if not all of them have a recording here
    num_here: int = 0  # recordings of these journals

    @property
    def num_lost(self) -> int:
        return len(self.journals) - self.num_here

    @property
    def failed(self) -> bool:
        return not self.journals and not self.left_out and self.why is not None

    @property
    def unknown(self) -> bool:
        return not self.journals and not self.left_out and self.why is None


@dataclass(frozen=True, slots=True)
class GroupOfRun:
    """One attention group of a run. Its ranks keep the same books, so one recording represents all."""

    group: Group
    side: str
    members: tuple[Member, ...]
    absent: tuple[Absent, ...]

    @property
    def missing(self) -> bool:
        return not self.members

    @property
    def ambiguous(self) -> bool:
        """Whether several processes have the same rank.

        They belong to different servers, or to restarts of one server that had the same pids.
        Which recordings belong together is not recorded. If the group has only one tp rank,
        restarts do not make it ambiguous.
        """
        ranks = {m.rank.tp_rank for m in self.members}
        lives = {(m.rank.tp_rank, m.pid, m.started * (len(ranks) > 1)) for m in self.members}
        return len(lives) > len(ranks)


@dataclass(frozen=True, slots=True)
class WholeRun:
    """The recordings of one run id that are present."""

    run_id: str
    members: tuple[Member, ...]
    hosts: tuple[str, ...]  # the hosts with a manifest here
    groups: tuple[GroupOfRun, ...]
    # Schedulers of unknown rank: a sentence each, saying why they were not recorded.
    unplaced: tuple[str, ...]

    @property
    def alone(self) -> bool:
        """Whether the run is a single recording of a single scheduler, with nothing more to report."""
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
        ended_early=stats is not None and stats.ended_early,
        made=tuple(step.how for step in recording.derived),
    )


def is_late(recording: Recording) -> bool:
    """Whether the server had launched batches before the first recorded one (by `forward_ct`).

    If no launch was recorded, a GAP at the head tells: it stands for the launches before it.
    """
    iteration, launches = recording.events.iteration, recording.event_of(Kind.LAUNCH)
    if len(launches):
        return int(iteration[launches[0]]) > 1
    return bool((iteration[: _gaps_at_head(recording)] > 0).any())


def begins_at(recording: Recording) -> int | None:
    """Return the step at which a recording of a running server begins. None: it begins with its server."""
    head = _gaps_at_head(recording)
    if not head or not is_late(recording) or _is_shrunk(recording):
        return None
    iteration = recording.events.iteration
    return int(iteration[min(head, len(iteration) - 1)])


def _gaps_at_head(recording: Recording) -> int:
    return int(np.cumprod(recording.events.kind == Kind.GAP).sum())


def _is_shrunk(recording: Recording) -> bool:
    return any(step.how == "shrink" for step in recording.derived)


def num_dropped(recording: Recording) -> int:
    """Return the number of events that were lost while recording."""
    lost, stats = lost_in_gaps(recording), recording.stats
    return max(int(lost.sum()), 0 if stats is None else stats.dropped)


def lost_in_gaps(recording: Recording) -> NDArray[np.int64]:
    """Return for each GAP how many events were lost there, or left out by `shrink`.

    In each GAP at the head of a late recording, 1 stands for the unknown number of events before the
    recording began, and is not counted. There are two such GAPs if a ring's oldest segments were
    deleted before the recorder's own one.
    """
    lost = recording.gaps.dropped.copy()
    if is_late(recording) and not _is_shrunk(recording):
        lost[: _gaps_at_head(recording)] -= 1
    return lost


def runs(members: Iterable[Member], manifests: Sequence[RunManifest] = ()) -> list[WholeRun]:
    """Group recordings by run id, in the order of each run's first recording.

    Runs that have a manifest but no recording come last.
    """
    by_run: dict[str, list[Member]] = {}
    for member in members:
        by_run.setdefault(member.run_id, []).append(member)
    for manifest in manifests:
        by_run.setdefault(manifest.run_id, [])
    return [
        _whole(run_id, found, [one for one in manifests if one.run_id == run_id])
        for run_id, found in by_run.items()
    ]


def _whole(run_id: str, members: list[Member], manifests: list[RunManifest]) -> WholeRun:
    schedulers = [one for manifest in manifests for one in manifest.schedulers]
    told: dict[_Place, list[SchedulerEntry]] = defaultdict(list)
    for one in schedulers:
        if one.rank is not None:
            told[one.rank.group, one.rank.tp_rank].append(one)
    here_by_place: dict[_Place, list[Member]] = defaultdict(list)
    for member in members:
        here_by_place[member.rank.group, member.rank.tp_rank].append(member)
    absent_by_place = {
        place: found
        for place, entries in told.items()
        if (found := _absent(place[1], entries, here_by_place[place]))
    }
    groups = []
    for side in sorted({member.side for member in members}) or [""]:
        here = [member for member in members if member.side == side]
        ranks = [m.rank for m in here] or [one.rank for one in schedulers if one.rank is not None]
        groups += [_group(group, side, ranks[0], here, absent_by_place) for group in _groups(ranks)]
    return WholeRun(
        run_id=run_id,
        members=tuple(
            sorted(members, key=lambda m: (m.side, m.rank.group, m.rank.tp_rank, m.path))
        ),
        hosts=tuple(manifest.host for manifest in manifests),
        groups=tuple(groups),
        unplaced=tuple(
            f"process {one.pid}: {one.why}" for one in schedulers if one.rank is None and one.why
        ),
    )


def _absent(
    tp_rank: int, entries: Sequence[SchedulerEntry], members: Sequence[Member]
) -> Absent | None:
    """Return what manifests say of one place of a run, or None if every recording of it is here.

    A place can have several entries: of a server that was restarted with the same run id, or of
    several starts of recording.
    """
    journals: dict[int, list[str]] = defaultdict(list)
    for one in entries:
        if one.journal and not one.why and one.journal not in journals[one.pid]:
            journals[one.pid].append(one.journal)
    # A recording may have been renamed, so it is known by its start. Files made from it have the same.
    num_here = {pid: len({m.started for m in members if m.pid == pid}) for pid in journals}
    lost = [pid for pid, written in journals.items() if len(written) > num_here[pid]]
    if lost:
        every = tuple(journal for pid in lost for journal in journals[pid])
        return Absent(tp_rank, False, None, every, sum(num_here[pid] for pid in lost))
    if members or any(journals.values()):
        return None
    return Absent(tp_rank, entries[-1].left_out, entries[-1].why)


def _groups(ranks: Sequence[Rank]) -> list[Group]:
    """Return all attention groups: those that exist, and those that the sizes of the ranks imply."""
    return sorted({group for rank in ranks for group in (rank.group, *rank.groups())})


def _group(
    group: Group,
    side: str,
    rank: Rank,
    members: Sequence[Member],
    absent_by_place: dict[_Place, Absent],
) -> GroupOfRun:
    here = tuple(
        sorted(
            (m for m in members if m.rank.group == group), key=lambda m: (m.rank.tp_rank, m.path)
        )
    )
    there = {member.rank.tp_rank for member in here}
    absent = []
    for tp in rank.tp_ranks(group):
        found = absent_by_place.get((group, tp))
        if found or tp not in there:
            absent.append(found or Absent(tp, False, None))
    return GroupOfRun(group, side, here, tuple(absent))
