"""The manifest of a run: which of a server's schedulers are recorded, and why the others are not."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from children import on_demand, rig, specdiff
from specdiff.cli.main import BROKEN, SAME, USAGE
from specdiff.recorders import hdf5, run_manifest
from specdiff.recorders.errors import RecordingError
from specdiff.recorders.ranks import Group, Rank
from specdiff.recorders.recover import recover
from specdiff.recorders.run_manifest import MANIFEST, RunManifest, SchedulerEntry
from specdiff.recorders.runs import Absent, member_of, runs

ALONE = Rank(0, 1, None, 1, 0, 1, dp_attention=False)


def of_tp(rank: int) -> Rank:
    return Rank(rank, 2, None, 1, 0, 1, dp_attention=False)


@pytest.mark.live
@pytest.mark.parametrize("version", [*on_demand("0.5.11", "0.5.16"), "0.5.23"])
def test_one_rank_of_a_group_is_recorded_and_the_manifest_says_why(
    version: str, tmp_path: Path
) -> None:
    """The releases keep ranks in three places: on the scheduler, on its `ps`, in the runtime context."""
    command = rig(version, "tp-random", "--requests", "8")
    done = specdiff("record", "-o", tmp_path, "--run-id", "shared", "--", *command)
    assert done.returncode == 0, done.stderr
    (path,) = map(Path, done.stdout.split())
    assert "not recorded" not in done.stderr
    assert "left out: process" in done.stderr and "--all-ranks" in done.stderr
    (written,) = tmp_path.glob(f"shared.*{MANIFEST}")
    assert sorted(tmp_path.iterdir()) == sorted([path, written])
    told = run_manifest.read(written)
    first, second = sorted(told.schedulers, key=lambda one: one.left_out)
    assert (first.rank, second.rank) == (of_tp(0), of_tp(1))
    assert first.journal == f"shared-{first.pid}-0.journal" and first.why is None
    assert second.journal is None and "attn_tp_rank 1" in str(second.why)
    recording = hdf5.load(path)
    assert (recording.run.run_id, recording.run.tp_rank, recording.run.pid) == (
        "shared",
        0,
        first.pid,
    )
    (run,) = runs([member_of(path, recording)], [told])
    (group,) = run.groups
    assert group.absent == (Absent(1, True, second.why),) and not group.missing
    said = specdiff("info", tmp_path)
    assert said.returncode == SAME
    assert "recordings: 1, attention groups: 1" in said.stdout
    assert (
        "left out: dp 0, pp 0, tp 1: another rank of its group is recorded instead" in said.stdout
    )


def test_a_host_without_a_first_rank_records_nothing_and_that_is_no_error(tmp_path: Path) -> None:
    """On the second of two hosts, every rank keeps the same books as a rank of the first host."""
    from specdiff.recorders.notes import left_out, read_notes, why_nothing

    lines = [
        {"pid": 7, "sglang_version": "0.5.23", "missing": {}},
        {
            "constructed": True,
            "journal": None,
            "left_out": "another one does",
            "rank": dataclasses.asdict(of_tp(1)),
        },
    ]
    note = tmp_path / "shared-7.attach.json"
    note.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_notes([note])
    assert why_nothing(found) == [] and left_out(found) == ["process 7: another one does"]
    assert recover(tmp_path) == []
    (written,) = tmp_path.iterdir()
    assert run_manifest.read(written).schedulers == (
        SchedulerEntry(7, of_tp(1), None, True, "another one does"),
    )
    said = specdiff("info", tmp_path)
    # the other host's recordings are not here
    assert "1 of 1 attention groups missing" in said.stdout


@pytest.mark.live
def test_info_names_a_missing_rank_and_why_it_is_missing(
    tmp_path: Path, record_dp: list[Path]
) -> None:
    shutil.copy(record_dp[0], tmp_path)
    said = specdiff("info", tmp_path).stdout
    assert "recordings: 1, attention groups: 2, 1 of 2 attention groups missing" in said
    assert "no recording here: dp 1, pp 0, tp 1: no manifest here says whether it was" in said
    for path in record_dp[0].parent.glob(f"*{MANIFEST}"):
        shutil.copy(path, tmp_path)
    said = specdiff("info", tmp_path).stdout
    assert "missing: dp 1, pp 0, tp 1: it was recorded, but no recording of its journal" in said
    shutil.copy(record_dp[1], tmp_path)
    said = specdiff("info", tmp_path).stdout
    assert "recordings: 2, attention groups: 2" in said and ", complete\n" in said


@pytest.fixture(scope="module")
def record_dp(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("dp")
    done = specdiff("record", "-o", folder, "--", *rig("0.5.23", "dp-idle", "--requests", "12"))
    assert done.returncode == 0, done.stderr
    return sorted(map(Path, done.stdout.split()), key=lambda path: path.name.partition("-dp")[2])


@pytest.mark.live
def test_check_compares_the_launches_of_dp_ranks_unless_one_lost_events(
    tmp_path: Path, record_dp: list[Path]
) -> None:
    said = specdiff("check", *record_dp).stdout
    assert "launches, including idle ones: dp 0, tp 0: " in said and "They are equal." in said
    recording = hdf5.load(record_dp[1])
    from gaps import without

    size = len(recording.events.kind)
    hdf5.save(without(recording, size - 9, size), tmp_path / "short.h5")
    said = specdiff("check", record_dp[0], tmp_path / "short.h5").stdout
    assert "Not judged: short.h5 lost 9 events" in said


@pytest.mark.parametrize(
    ("rank", "groups", "of_last"),
    [
        (ALONE, [(0, 0)], [0]),
        (Rank(3, 8, None, 1, 0, 1, False), [(0, 0)], [0, 1, 2, 3, 4, 5, 6, 7]),
        (Rank(5, 8, 1, 4, 0, 1, True), [(0, 0), (1, 0), (2, 0), (3, 0)], [6, 7]),
        (Rank(1, 2, 1, 2, 0, 1, False), [(0, 0), (1, 0)], [0, 1]),  # replicas
        (Rank(0, 2, None, 1, 1, 2, False), [(0, 0), (0, 1)], [0, 1]),
    ],
)
def test_the_expected_groups_and_ranks_follow_from_the_sizes(
    rank: Rank, groups: list[tuple[int, int]], of_last: list[int]
) -> None:
    assert rank.groups() == [Group(*one) for one in groups]
    assert list(rank.tp_ranks(rank.groups()[-1])) == of_last


def test_a_manifest_is_extended_by_later_writes_and_read_back(tmp_path: Path) -> None:
    first = SchedulerEntry(1, of_tp(0), "r-1-0.journal", False, None)
    second = SchedulerEntry(2, of_tp(1), None, True, "another does")
    failed = SchedulerEntry(3, None, None, False, "the recorder could not start (OSError)")
    path = run_manifest.write(tmp_path, "r", [first])
    assert path is not None and path == run_manifest.write(tmp_path, "r", [second, first, failed])
    assert list(tmp_path.iterdir()) == [path]
    assert run_manifest.read(path).schedulers == (first, second, failed)
    assert run_manifest.read(path).run_id == "r"


def test_a_server_of_one_scheduler_needs_no_manifest(tmp_path: Path) -> None:
    one = SchedulerEntry(1, ALONE, "r-1-0.journal", False, None)
    assert run_manifest.write(tmp_path, "r", [one]) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("[]", "not the manifest of a run"),
        ('{"format": "specdiff-run", "version": 2}', "version 2 of specdiff-run"),
        ('{"format": "specdiff-run", "version": 1, "run_id": "r"}', "damaged (KeyError('host'))"),
        (
            '{"format": "specdiff-run", "version": 1, "run_id": "r", "host": "h", "schedulers": [{"rank": {"tp": 1}}]}',
            "damaged (TypeError",
        ),
    ],
)
def test_a_file_that_is_no_manifest_is_refused_with_the_reason(
    content: str, said: str, tmp_path: Path, real_recording: Path
) -> None:
    path = tmp_path / f"r.h{MANIFEST}"
    path.write_text(content)
    with pytest.raises(RecordingError) as caught:
        run_manifest.read(path)
    assert said in str(caught.value) and str(path) in str(caught.value)
    shutil.copy(real_recording, tmp_path)
    done = specdiff("info", tmp_path)
    assert done.returncode == BROKEN and said in done.stderr


def test_the_manifests_of_two_hosts_make_one_run(tmp_path: Path) -> None:
    two = [
        RunManifest("r", "a", (SchedulerEntry(1, of_tp(0), "r-1-0.journal", False, None),)),
        RunManifest("r", "b", (SchedulerEntry(1, of_tp(1), None, True, "another does"),)),
    ]
    (run,) = runs([], two)
    assert run.hosts == ("a", "b")
    (group,) = run.groups
    assert [(one.tp_rank, one.left_out) for one in group.absent] == [(0, False), (1, True)]
    assert group.missing


def _info(folder: Path, *schedulers: SchedulerEntry) -> str:
    """What `info` says of a folder, once its manifest names these schedulers."""
    for path in folder.glob(f"*{MANIFEST}"):
        path.unlink()
    if schedulers:
        assert run_manifest.write(folder, "r", schedulers)
    said = specdiff("info", folder)
    assert said.returncode == SAME, said.stderr
    return said.stdout[said.stdout.index("run r  ") :]


def test_a_run_is_complete_only_if_nothing_that_was_to_be_recorded_is_missing(
    tmp_path: Path, real_recording: Path
) -> None:
    """`info` said "complete" of a run of which a file had been deleted."""
    recording = hdf5.load(real_recording)
    of_run = dataclasses.replace(recording.run, run_id="r", pid=7, started="1", tp_size=2)
    hdf5.save(dataclasses.replace(recording, run=of_run), tmp_path / "renamed.h5")
    first = SchedulerEntry(7, of_tp(0), "r-7-0.journal", False, None)
    left_out = SchedulerEntry(8, of_tp(1), None, True, "another does")
    written = SchedulerEntry(8, of_tp(1), "r-8-0.journal", False, None)
    failed = SchedulerEntry(8, of_tp(1), None, False, "the recorder could not start (OSError)")

    said = _info(tmp_path, first, left_out)
    assert ", complete\n" in said and "left out: dp 0, pp 0, tp 1: another rank" in said

    # One and the same scheduler can be left out of a later recording of the run.
    for told in ([first, written], [first, written, left_out]):
        said = _info(tmp_path, *told)
        assert ", 1 recording missing\n" in said and "not recorded" not in said
        assert (
            "missing: dp 0, pp 0, tp 1: it was recorded, but no recording of its journal r-8-0.journal can be read here\n"
            in said
        )

    for broken in (failed, dataclasses.replace(failed, rank=None)):
        said = _info(tmp_path, first, broken)
        assert ", 1 scheduler not recorded" in said and "complete\n" not in said.splitlines()[0]
        assert "not recorded: " in said and "the recorder could not start (OSError)" in said

    said = _info(tmp_path)
    assert ", 1 rank unaccounted for\n" in said and "not recorded" not in said
    assert "no recording here: dp 0, pp 0, tp 1: no manifest here says whether it was rec" in said


def test_a_rank_that_was_recorded_twice_is_missing_if_one_of_its_files_is(
    tmp_path: Path, real_recording: Path
) -> None:
    """As in a restarted container, whose schedulers can have the same process numbers again."""
    recording = hdf5.load(real_recording)
    told = [SchedulerEntry(7, of_tp(0), f"r-7-{n}.journal", False, None) for n in (0, 1)]
    told.append(SchedulerEntry(8, of_tp(1), None, True, "another does"))
    for started, says in (("1", ", 1 recording missing\n"), ("2", ", complete\n")):
        of_run = dataclasses.replace(recording.run, run_id="r", pid=7, tp_size=2, started=started)
        for name in ("", "-copy"):  # a copy stands for no other recording
            path = tmp_path / f"{started}{name}.h5"
            hdf5.save(dataclasses.replace(recording, run=of_run), path)
        said = _info(tmp_path, *told)
        assert says in said, said
        assert ("but only 1 of these recordings can be read here" in said) is (started == "1")


@pytest.mark.parametrize("name", ["20261121", "a-b", "a.b", "", "_"])
def test_a_run_id_that_would_make_file_names_ambiguous_is_refused(
    name: str, tmp_path: Path
) -> None:
    done = specdiff("record", "-o", tmp_path, "--run-id", name, "--", "true")
    assert done.returncode == USAGE and "expected a letter" in done.stderr
