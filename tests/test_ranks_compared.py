"""Which recordings of a run are compared: a file made from one of them never hides a difference."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from specdiff.cli.inputs import bundled
from specdiff.recorders import hdf5
from specdiff.recorders.derived import Derived
from specdiff.recorders.recording import Recording
from specdiff.recorders.runs import Member, member_of, num_dropped, runs
from specdiff.replay.rank_comparison import RanksOfRun, compare

SHRUNK, REDACTED = (
    Derived(how, "0" * 64, "for a test", 0, tokens_replaced=True) for how in ("shrink", "redact")
)


@pytest.fixture(scope="module")
def idle() -> list[Recording]:
    """Two ranks of DP attention, which launch together."""
    left, right = (hdf5.load(bundled() / f"0.5.12-dp-idle-rank{rank}.h5") for rank in range(2))
    return [left, right]


@pytest.fixture(scope="module")
def stray(idle: list[Recording]) -> list[Recording]:
    """Two ranks of one group. The second has another sum at one launch."""
    args = {**idle[0].run.server_args, "enable_dp_attention": False}
    whole = dataclasses.replace(
        idle[0].run, tp_rank=0, tp_size=2, dp_rank=None, dp_size=1, server_args=args
    )
    sums = idle[0].launches.seq_lens_sum.copy()
    sums[3] += 1
    return [
        dataclasses.replace(idle[0], run=whole),
        dataclasses.replace(
            idle[0],
            run=dataclasses.replace(whole, tp_rank=1, pid=whole.pid + 1),
            launches=dataclasses.replace(idle[0].launches, seq_lens_sum=sums),
        ),
    ]


def made(recording: Recording, *steps: Derived) -> Recording:
    return dataclasses.replace(recording, derived=steps)


def compared(files: dict[str, Recording], **more_launches: int) -> RanksOfRun:
    """Compare the ranks of a run. `more_launches`: file name without suffix -> launches to add to what it holds."""

    def member(name: str, recording: Recording) -> Member:
        found = member_of(Path(name), recording)
        more = more_launches.get(name.partition(".")[0], 0)
        return dataclasses.replace(found, num_launches=found.num_launches + more)

    (run,) = runs([member(name, recording) for name, recording in files.items()])
    return compare(run, lambda path: files[path.name])


def pairs(found: RanksOfRun) -> list[tuple[str, str]]:
    return [(pair.left.path.name, pair.right.path.name) for pair in found.pairs]


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("step", [SHRUNK, REDACTED])
def test_a_shrunk_or_redacted_file_does_not_keep_the_ranks_from_being_compared(
    stray: list[Recording], place: int, step: Derived
) -> None:
    files = {"tp0.h5": stray[0], "tp1.h5": stray[1], "a.h5": made(stray[place], step)}
    found = compared(files)
    assert pairs(found) == [("tp0.h5", "tp1.h5")]
    assert found.differs
    (why,) = found.not_compared  # names only the file that is not compared
    assert "a.h5" in why and "tp0.h5" not in why and "tp1.h5" not in why


def test_redacted_ranks_are_compared_with_each_other_and_shrunk_ones_are_not(
    stray: list[Recording],
) -> None:
    files = {"tp0.h5": stray[0], "tp1.h5": stray[1]}
    redacted = {f"red-{name}": made(one, REDACTED) for name, one in files.items()}
    both = [("tp0.h5", "tp1.h5"), ("red-tp0.h5", "red-tp1.h5")]
    found = compared({**files, **redacted})
    assert sorted(pairs(found)) == sorted(both) and not found.not_compared
    one = compared({"tp0.h5": stray[0], "red-tp1.h5": redacted["red-tp1.h5"]})
    assert not one.pairs and len(one.not_compared) == 2
    shrunk = compared({name: made(one, SHRUNK) for name, one in files.items()})
    assert not shrunk.pairs and len(shrunk.not_compared) == 2


def test_a_file_given_twice_is_compared_once(stray: list[Recording], tmp_path: Path) -> None:
    paths = [tmp_path / f"tp{rank}.h5" for rank in range(2)]
    for path in paths:
        path.touch()
    link = tmp_path / "link.h5"
    link.symlink_to(paths[1])
    members = [member_of(path, stray[path != paths[0]]) for path in (*paths, paths[1], link)]
    (run,) = runs(members)
    found = compare(run, lambda path: stray[path != paths[0]])
    assert len(found.pairs) == 1 and not found.not_compared


@pytest.mark.parametrize("step", [(SHRUNK,), (REDACTED,), ()])  # (): a copy
def test_a_file_made_from_a_dp_rank_does_not_keep_launches_from_being_judged(
    idle: list[Recording], step: tuple[Derived, ...]
) -> None:
    files = {"dp0.h5": idle[0], "dp1.h5": idle[1], "a.h5": made(idle[0], *step)}
    same = compared(files)
    assert same.in_step is not None and same.in_step.why_not is None and not same.differs
    assert not same.not_compared
    assert compared(files, dp1=1).differs


@pytest.mark.parametrize("how", ["late", "sample", "ended"])
def test_launches_are_not_judged_if_a_rank_was_recorded_only_in_part(
    idle: list[Recording], how: str
) -> None:
    files = {"dp0.h5": idle[0], "dp1.h5": idle[1]}
    if how == "sample":
        files["dp1.h5"] = made(idle[1], Derived("sample", "0" * 64, "for a test", 0, False))
    elif how == "ended":
        assert idle[1].stats is not None
        stats = dataclasses.replace(idle[1].stats, ended_early=True)
        files["dp1.h5"] = dataclasses.replace(idle[1], stats=stats)
    else:
        events = idle[1].events
        later = dataclasses.replace(events, iteration=events.iteration + 5)
        files["dp1.h5"] = dataclasses.replace(idle[1], events=later)
    found = compared(files, dp1=1)
    assert found.in_step is not None and not found.differs
    told = {
        "late": "began on a running server",
        "sample": "holds only some of the requests",
        "ended": "ended before its server did",
    }
    assert found.in_step.why_not == f"dp1.h5 {told[how]}"


def test_recordings_that_share_one_step_are_compared(
    stray: list[Recording],
) -> None:
    """One rank's recording begins in the last step of the other's, or one step later."""
    members = [member_of(Path(f"tp{rank}.h5"), one) for rank, one in enumerate(stray)]
    assert members[0].steps is not None
    end = members[0].steps[1]
    for first, met in ((end, True), (end + 1, False)):
        other = dataclasses.replace(members[1], steps=(first, first + 9))
        (run,) = runs([members[0], other])
        found = compare(run, lambda path: stray[path.name != "tp0.h5"])
        assert (len(found.pairs), len(found.not_compared)) == ((1, 0) if met else (0, 2))


def test_two_different_recordings_of_a_dp_rank_are_reported_as_not_compared(
    idle: list[Recording],
) -> None:
    files = {"dp0.h5": idle[0], "dp1.h5": idle[1], "later.h5": idle[1]}
    found = compared(files, later=-2)
    assert found.in_step is None
    (why,) = found.not_compared
    assert "dp1.h5, later.h5" in why and "dp 1, tp 1" in why
    lone = compared({"dp0.h5": made(idle[0], REDACTED), "dp1.h5": idle[1]}, dp1=1)
    assert lone.differs  # `redact` keeps every launch


def test_drops_that_no_gap_mentions_are_counted(idle: list[Recording]) -> None:
    assert idle[0].stats is not None and not len(idle[0].gaps.dropped)
    stats = dataclasses.replace(idle[0].stats, dropped=7)
    lost = dataclasses.replace(idle[0], stats=stats)
    assert (num_dropped(idle[0]), num_dropped(lost)) == (0, 7)
