"""A restarted container: same run id, same folder and same process ids as before the restart."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from children import specdiff
from specdiff.cli.inputs import bundled
from specdiff.cli.main import SAME
from specdiff.recorders import hdf5, run_manifest
from specdiff.recorders.file_names import next_number
from specdiff.recorders.notes import read_notes
from specdiff.recorders.ranks import Rank
from specdiff.recorders.recover import is_locked, journals, notes
from specdiff.recorders.runs import member_of, runs
from specdiff.recorders.runtime import RUNTIME

RECORDING = bundled() / "0.5.23-random.h5"

# argv: a recording, a folder, a number of gaps, and statements to execute. Only sglang and the process id are not real.
LIFE = """
import dataclasses, os, signal, sys
from pathlib import Path
from types import SimpleNamespace
from specdiff.recorders import hdf5
from specdiff.recorders.capture import process_state, startup as startups
from specdiff.recorders.capture.config import Config
from specdiff.recorders.schema import Kind
signal.alarm(60)  # in case it hangs
number, os.getpid = os.getpid(), lambda: 11
run = dataclasses.replace(hdf5.load(Path(sys.argv[1])).run, run_id="prod", pid=11)
process_state.describe_run, startups.why_not_spec_v2 = lambda *args: run, lambda scheduler: None
options = {}
exec(sys.argv[4])
state = process_state.ProcessState(Config(Path(sys.argv[2]), "prod", **options), [])
state.note.open()
class Scheduler:
    server_args, forward_ct = SimpleNamespace(), 1
    __init__ = startups.Startup(state).wrap(lambda self: None)
scheduler = Scheduler()
recorder = state.of_process(())
assert recorder is not None, "it is not recorded"
for _ in range(int(sys.argv[3])): recorder.emit(Kind.GAP, (1,))
recorder.writer.flush(20)
print(recorder.path.name, flush=True)
sys.stdin.read()
os.kill(number, signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUNTIME, str(tmp_path / "run"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (made := tmp_path / "r").mkdir()
    return made


def begun(folder: Path, num_gaps: int, before: str = "") -> subprocess.Popen[str]:
    """Start a recorded process that runs until its stdin is closed, and then kills itself."""
    command = [sys.executable, "-c", LIFE, str(RECORDING), str(folder), str(num_gaps), before]
    return subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True)


def lived(folder: Path, num_gaps: int, before: str = "") -> str:
    """Run such a process to its end and return the name of its journal."""
    with begun(folder, num_gaps, before) as life:
        said, complained = life.communicate(timeout=60)
    assert life.returncode == -signal.SIGKILL, complained
    return said.strip()


def test_each_restart_gets_a_journal_of_its_own_and_overwrites_nothing(folder: Path) -> None:
    assert [lived(folder, 3), lived(folder, 5)] == ["prod-11-0.journal", "prod-11-1.journal"]
    assert [one.journals[0].name for one in read_notes(notes(folder))] == [
        "prod-11-1.journal",
        "prod-11-0.journal",
    ]
    done = specdiff("recover", folder)
    assert done.returncode == SAME, done.stderr
    first, second = map(Path, done.stdout.split())
    assert [len(hdf5.load(path).gaps.dropped) for path in (first, second)] == [4, 6]
    assert first.name.endswith("-prod-pid11-0.h5") and second.name.endswith("-prod-pid11-1.h5")
    (told,) = run_manifest.manifests(folder)
    assert sorted(folder.iterdir()) == sorted([first, second, told])
    assert sorted(str(one.journal) for one in run_manifest.read(told).schedulers) == [
        "prod-11-0.journal",
        "prod-11-1.journal",
    ]
    said = specdiff("info", folder)
    assert said.returncode == SAME and "recordings: 2, attention groups: 1" in said.stdout
    assert lived(folder, 1) == "prod-11-2.journal"  # recordings keep their numbers


def test_the_control_socket_opens_only_after_the_own_recording_has_begun(folder: Path) -> None:
    """An earlier `start` would begin a second recording of the same scheduler, and one of them could not be stopped."""
    assert lived(folder, 1, ASKABLE) == "prod-11-0.journal"


ASKABLE = """
begin, control, opened = process_state.ProcessState.begin, startups.Control, []
def checked(self, config):
    assert not opened
    return begin(self, config)
def opens(*args):
    opened.append(control(*args))
    return opened[0]
process_state.ProcessState.begin, startups.Control = checked, opens
"""


@pytest.mark.parametrize("what", ["", "options = {'ring_s': 60.0}"])
def test_two_containers_with_the_same_name_and_pid_are_both_recorded(
    what: str, folder: Path
) -> None:
    """Neither waits for the other's lock. The second looked for free numbers before the first had created its files."""
    unseen = "process_state.next_number = lambda *args: args[-1]\n"
    with begun(folder, 1, what) as one:
        assert one.stdout is not None and one.stdout.readline() == "prod-11-0.journal\n"
        with begun(folder, 2, unseen + what) as other:
            assert other.stdout is not None and other.stdout.readline() == "prod-11-1.journal\n"
            assert [is_locked(path) for path in (*journals(folder), *notes(folder))] == [True] * 4
            other.communicate(timeout=60)
        one.communicate(timeout=60)
    done = specdiff("recover", folder)
    assert len(done.stdout.split()) == 2, done.stderr


@pytest.mark.parametrize(
    "left",
    [
        "prod-11-6.journal",
        "prod-11-6.1.journal",
        "prod-11-6.journal.damaged",
        "prod-11-6.journal.done",
        "20261121-113843-0.5.23-prod-pid11-6.h5",
        "20261121-113843-0.5.23-prod-pid11-6.1.h5",
        "20261121-113843-0.5.23-prod-pid11-6-dp1-tp0.h5",
        "20261121-113843-0.5.23-prod-pid11-6.h5.0123abcd.tmp",
    ],
)
def test_a_journal_number_is_taken_as_long_as_any_file_has_it(left: str, tmp_path: Path) -> None:
    assert next_number(tmp_path, "prod", 11, 2) == 2
    (tmp_path / left).touch()
    assert next_number(tmp_path, "prod", 11, 2) == 7
    assert next_number(tmp_path, "prod", 11, 9) == 9
    assert next_number(tmp_path, "prod", 1, 2) == next_number(tmp_path, "pro", 11, 2) == 2
    (tmp_path / "prod-11.attach.json").touch()
    (tmp_path / "prod-11.1.attach.json").touch()
    assert next_number(tmp_path, "prod", 11, 2) == 7


def test_ranks_recorded_before_and_after_a_restart_are_ambiguous() -> None:
    """A recording kept of a ring is not: it has the same start time as the ring."""
    member = member_of(RECORDING, hdf5.load(RECORDING))
    tp = [Rank(number, 2, None, 1, 0, 1, False) for number in (0, 1)]
    first = [dataclasses.replace(member, rank=rank, pid=11 + rank.tp_rank) for rank in tp]
    second = [dataclasses.replace(one, started="2027-01-01T00:00:00.000+00:00") for one in first]

    def ambiguous(*members: object) -> bool:
        (run,) = runs(members)  # type: ignore[arg-type]
        return run.groups[0].ambiguous

    assert ambiguous(*first, *second) and ambiguous(*first, second[1])
    assert not ambiguous(*first, dataclasses.replace(first[0], path=Path("kept.h5")))
