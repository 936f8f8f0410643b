"""`specdiff recover`: journals that are whole, cut, empty or locked, and recordings that are in the way."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from children import specdiff, wait_for
from specdiff.recorders import hdf5
from specdiff.recorders.build import build
from specdiff.recorders.errors import RecordingError
from specdiff.recorders.file_names import pid_of, recording_name
from specdiff.recorders.journal import HEADER, Type, frame, frames
from specdiff.recorders.recording import Recording
from specdiff.recorders.recover import NotRecovered, Recovered, is_locked, recover
from specdiff.recorders.run import Run, to_json
from specdiff.recorders.schema import NONE64, Kind
from specdiff.recorders.wire import ROW_WIDTH, pack_event
from strategies import RUN, journals

LOCKED = """
import fcntl, sys, time
file = open(sys.argv[1], "ab")
fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(60)
"""


def ran(**changes: object) -> tuple[Type, bytes]:
    return Type.RUN, to_json(dataclasses.replace(RUN, **changes)).encode()  # type: ignore[arg-type]


def run_frame(**changes: object) -> bytes:
    return frames([ran(**changes)])


def gap(dropped: int) -> tuple[Kind, bytes]:
    return Kind.GAP, pack_event(Kind.GAP, 1, 0, (dropped,))  # before the first launch


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(journal=journals())
def test_recover_turns_a_journal_into_a_recording_and_deletes_the_journal(
    journal: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("recover")
    (directory / "r-1-0.journal").write_bytes(journal)
    (outcome,) = recover(directory)
    assert isinstance(outcome, Recovered)
    assert [path.name for path in directory.iterdir()] == [outcome.path.name]
    recording = hdf5.load(outcome.path)
    assert outcome.num_events == len(recording.events.kind)


def test_recover_with_a_run_id_leaves_the_journals_of_other_runs(tmp_path: Path) -> None:
    for name in ("a-1-0", "b-1-0"):
        (tmp_path / f"{name}.journal").write_bytes(HEADER + run_frame())
    (outcome,) = recover(tmp_path, "a")
    assert outcome.journal.name == "a-1-0.journal"
    assert (tmp_path / "b-1-0.journal").exists()


def test_a_cut_journal_keeps_the_events_before_the_cut_and_the_damage_is_reported(
    tmp_path: Path,
) -> None:
    data = HEADER + frames([ran(), gap(2), gap(3)])
    (tmp_path / "r-1-0.journal").write_bytes(data[:-1])
    done = specdiff("recover", tmp_path)
    assert done.returncode == 0
    path = Path(done.stdout.strip())
    assert hdf5.load(path).gaps.dropped.tolist() == [2]
    assert "1 events, 2 dropped" in done.stderr
    assert "the file ends inside a record" in done.stderr


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "nothing was recorded"),
        (HEADER[:5], "nothing was recorded"),
        (HEADER, "nothing was recorded"),
        (b"specdiff-journal 9\n", "version 9; this specdiff reads versions 4 to 7."),
        (b"something else", "not a specdiff journal"),
        (HEADER + frame(Kind.GAP, b"short"), "GAP"),
    ],
)
def test_an_unreadable_journal_is_named_and_kept_and_the_others_are_recovered(
    content: bytes, why: str, tmp_path: Path
) -> None:
    (tmp_path / "r-1-0.journal").write_bytes(content)
    (tmp_path / "r-2-0.journal").write_bytes(HEADER + run_frame())
    done = specdiff("recover", tmp_path)
    assert done.returncode == 128
    assert why in done.stderr and "r-1-0.journal" in done.stderr
    assert (tmp_path / "r-1-0.journal").read_bytes() == content
    assert len(done.stdout.split()) == 1  # the sound journal is recovered


def test_recover_leaves_a_journal_that_a_process_still_locks(tmp_path: Path) -> None:
    journal = tmp_path / "r-1-0.journal"
    journal.write_bytes(HEADER + run_frame())
    with subprocess.Popen(
        [sys.executable, "-c", LOCKED, str(journal)], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == b"locked\n"
        (outcome,) = recover(tmp_path)
        child.kill()
    assert isinstance(outcome, NotRecovered) and outcome.live
    assert journal.exists()
    wait_for(lambda: isinstance(recover(tmp_path)[0], Recovered), "the lock to go")


def test_an_existing_recording_is_overwritten_only_with_force(tmp_path: Path) -> None:
    journal = tmp_path / "r-1-0.journal"
    journal.write_bytes(HEADER + run_frame())
    (first,) = recover(tmp_path)
    assert isinstance(first, Recovered)
    journal.write_bytes(HEADER + frames([ran(), gap(1)]))
    (second,) = recover(tmp_path)
    assert isinstance(second, NotRecovered) and "--force" in second.why
    assert len(hdf5.load(first.path).gaps.dropped) == 0
    (third,) = recover(tmp_path, force=True)
    assert isinstance(third, Recovered) and third.path == first.path
    assert hdf5.load(first.path).gaps.dropped.tolist() == [1]


def test_recover_finishes_the_work_of_a_killed_recover_without_force(tmp_path: Path) -> None:
    """The killed one had written the recording but not yet deleted the journal."""
    journal = tmp_path / "r-1-0.journal"
    journal.write_bytes(HEADER + frames([ran(), gap(1)]))
    data = journal.read_bytes()
    (first,) = recover(tmp_path)
    journal.write_bytes(data)
    (second,) = recover(tmp_path)
    assert isinstance(second, Recovered) and second == first and not journal.exists()


def test_recover_deletes_the_notes_of_a_process_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "r-1.attach.json").write_text("{}\n")
    assert recover(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_an_error_and_an_empty_one_is_not(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no such folder"):
        recover(tmp_path / "nowhere")
    done = specdiff("recover", tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing to recover" in done.stderr


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "20260102-030405-0.5.13-c0ffee-pid7-2.h5"),
        (
            {"dp_rank": 1, "dp_size": 2, "tp_rank": 3, "tp_size": 4},
            "20260102-030405-0.5.13-c0ffee-pid7-2-dp1-tp3.h5",
        ),
        ({"sglang_version": "0.5.14.dev1+g/x"}, "20260102-030405-0.5.14.dev1+g_x-c0ffee-pid7-2.h5"),
    ],
)
def test_a_recording_name_begins_with_the_time_and_ends_with_the_rank(
    changes: dict[str, object], name: str
) -> None:
    base = {
        "started": "2026-01-02T03:04:05.678+00:00",
        "sglang_version": "0.5.13",
        "pid": 7,
        "run_id": "20260102-030405-c0ffee",
    }
    run: Run = dataclasses.replace(RUN, **{**base, **changes})  # type: ignore[arg-type]
    assert recording_name(run, Path("run-7-2.journal")) == name


def test_a_journal_whose_recording_cannot_be_written_is_kept_and_the_others_are_recovered(
    tmp_path: Path,
) -> None:
    """The run id is so long that the name of the temporary file exceeds the limit of the file system."""
    size = len(recording_name(dataclasses.replace(RUN, run_id=""), Path("r-1-0.journal")))
    long = run_frame(run_id="x" * (255 - size))
    (tmp_path / "r-1-0.journal").write_bytes(HEADER + long)
    (tmp_path / "r-2-0.journal").write_bytes(HEADER + run_frame(run_id="x-other"))
    done = specdiff("recover", tmp_path)
    assert done.returncode == 128
    assert "cannot be written" in done.stderr and "Traceback" not in done.stderr
    assert f"specdiff recover {tmp_path}" in done.stderr
    assert "other-pid" in done.stdout
    assert (tmp_path / "r-1-0.journal").exists()


def test_a_recording_that_hdf5_refuses_does_not_keep_the_others_from_being_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        (tmp_path / f"r-{number}-0.journal").write_bytes(HEADER + run_frame(run_id=f"x-{number}"))
    create = hdf5._create
    refused: list[Any] = []

    def refusing(*args: Any) -> None:
        if not refused:
            refused.append(args)
            raise ValueError("Chunk size must be < 4GB")
        create(*args)

    monkeypatch.setattr(hdf5, "_create", refusing)
    first, second = recover(tmp_path)
    assert isinstance(first, NotRecovered) and "Chunk size must be < 4GB" in first.why
    assert "cannot be written" in first.why and first.journal.exists() and not first.live
    assert isinstance(second, Recovered)


def test_a_journal_that_cannot_be_opened_does_not_count_as_live(tmp_path: Path) -> None:
    (tmp_path / "r-1-0.journal").mkdir()
    (outcome,) = recover(tmp_path)
    assert isinstance(outcome, NotRecovered) and not outcome.live
    done = specdiff("recover", tmp_path)
    assert done.returncode == 128
    assert "nothing was recorded" in done.stderr and "still writes" not in done.stderr
    assert done.stderr.splitlines()[0].count("r-1-0.journal") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_a_journal_without_read_permission_does_not_count_as_live(tmp_path: Path) -> None:
    (tmp_path / "r-1-0.journal").write_bytes(HEADER + run_frame())
    (tmp_path / "r-1-0.journal").chmod(0)
    (outcome,) = recover(tmp_path)
    assert isinstance(outcome, NotRecovered) and not outcome.live


def test_a_ring_without_read_permission_is_named_and_the_others_are_recovered() -> None:
    """The ring is of another user's server. root can read everything, so the child gives up root first."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        (Path(folder) / "b-1-0.journal").write_bytes(HEADER + run_frame())
        (Path(folder) / "a-1-0.journal").mkdir(0)
        done = subprocess.run(
            [sys.executable, "-c", AS_SOMEBODY.format(folder=folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.split() == ["NotRecovered", "Recovered"], done.stderr
        assert "Permission denied" in done.stderr


AS_SOMEBODY = """
import os, sys
from pathlib import Path
from typing import Any
from specdiff.recorders.recover import recover
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
for one in recover(Path({folder!r})):
    print(type(one).__name__)
    print(getattr(one, "why", ""), file=sys.stderr)
"""


def test_a_failed_recovery_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "r-1-0.journal").write_bytes(HEADER + run_frame())
    (tmp_path / recording_name(RUN, tmp_path / "r-1-0.journal")).mkdir()
    (outcome,) = recover(tmp_path, force=True)
    assert isinstance(outcome, NotRecovered)
    assert list(tmp_path.glob("*.tmp")) == []


def test_one_recover_never_writes_the_same_recording_twice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}-1-0.journal").write_bytes(HEADER + run_frame())
    first, second = recover(tmp_path, force=True)
    assert isinstance(first, Recovered)
    assert isinstance(second, NotRecovered) and first.path.name in second.why
    assert (tmp_path / "b-1-0.journal").exists()


def test_a_kept_journal_is_named_once_in_the_output(tmp_path: Path) -> None:
    (tmp_path / "r-1-0.journal").write_bytes(HEADER)
    assert specdiff("recover", tmp_path).stderr.count("r-1-0.journal") == 1


def test_the_result_of_a_lost_launch_is_recorded_without_its_launch(tmp_path: Path) -> None:
    fields = (5, 2, *(NONE64,) * 4, 0, 0)
    lost = (Kind.RESULT, pack_event(Kind.RESULT, 1, 1, fields, [[]] * ROW_WIDTH[Kind.RESULT]))
    (tmp_path / "r-1-0.journal").write_bytes(HEADER + frames([ran(), gap(1), lost]))
    (outcome,) = recover(tmp_path)
    assert isinstance(outcome, Recovered)
    assert hdf5.load(outcome.path).results.launch.tolist() == [NONE64]


def test_a_journal_that_is_locked_while_recover_builds_it_is_left_to_its_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server creates its journal first and locks it right afterwards. In between, the journal looks abandoned."""
    path = tmp_path / f"{RUN.run_id}-{RUN.pid}-0.journal"
    path.write_bytes(HEADER + frame(Type.RUN, to_json(RUN).encode()))
    server = subprocess.Popen

    def built(journal: Path) -> Recording:
        started.append(server([sys.executable, "-c", LOCKED, str(path)], stdout=subprocess.PIPE))
        assert started[0].stdout is not None and started[0].stdout.readline() == b"locked\n"
        return build(journal)

    started: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr("specdiff.recorders.recover.build", built)
    (outcome,) = recover(tmp_path)
    with started[0] as ours:
        ours.kill()
    assert isinstance(outcome, NotRecovered) and outcome.live and path.exists()


def test_looking_for_a_lock_takes_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server would have to wait for that lock, as long as the process that looks is stopped."""
    path = tmp_path / "r-1-0.journal"
    path.write_bytes(HEADER)
    monkeypatch.setattr(fcntl, "lockf", lambda *_: pytest.fail("it takes a lock"))
    assert not is_locked(path)


@pytest.mark.skipif(sys.platform != "linux", reason="on other systems the check takes a lock")
def test_on_a_file_system_without_locks_every_journal_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without locks, nobody can tell whether a server still writes to it."""
    path = tmp_path / f"{RUN.run_id}-{RUN.pid}-0.journal"
    path.write_bytes(HEADER + frame(Type.RUN, to_json(RUN).encode()))

    def refuses(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "fcntl", refuses)
    (outcome,) = recover(tmp_path)
    assert (
        isinstance(outcome, NotRecovered) and "No locks available" in outcome.why and path.exists()
    )


def test_the_process_id_is_read_only_from_files_of_exactly_that_run() -> None:
    for name, pid in (
        ("job-4242-0.journal", "4242"),
        ("job-4242-0.3.journal.damaged", "4242"),
        ("job-4242.attach.json", "4242"),
        ("job-4242.1.attach.json", "4242"),
        ("job-b-4242-0.journal", None),
        ("job-2-4242-0.journal", None),
        ("job-2-4242.attach.json", None),
    ):
        assert pid_of(name, "job") == pid, name
    assert pid_of("v0.5-77.attach.json", "v0.5") == "77"
