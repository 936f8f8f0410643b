"""Recordings that `--attach ... start` began: their server ends, or the disk refuses writes."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from children import specdiff, wait_for
from specdiff.cli.inputs import bundled
from specdiff.recorders import hdf5
from specdiff.recorders.recover import is_locked, notes
from specdiff.recorders.runtime import RUNTIME

CHILD = Path(__file__).parent / "attach_child.py"


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUNTIME, str(tmp_path / "run"))


def recorded(folder: Path, statement: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `specdiff record --paused` on a child process that executes this statement and ends."""
    command = [sys.executable, str(CHILD), str(bundled() / "0.5.23-random.h5"), statement]
    done = specdiff("record", "--paused", *options, "-o", folder, "--", *command)
    assert done.returncode == 0, done.stderr
    return done


def test_a_ring_begun_by_attach_is_built_when_the_server_ends(tmp_path: Path) -> None:
    """It is built in the folder it was started in, together with what SIGUSR1 kept of it.

    A stopped one is already built.
    """
    first, other = tmp_path / "r", tmp_path / "other"
    done = recorded(first, RING.format(first=first, other=other))
    paths = [Path(line) for line in done.stdout.splitlines()]
    assert sorted(other.iterdir()) == sorted(paths) and len(paths) == 2
    kept, whole = sorted((hdf5.load(path) for path in paths), key=lambda one: len(one.gaps.dropped))
    assert (len(kept.gaps.dropped), len(whole.gaps.dropped)) == (
        101,
        151,
    )  # one for what came before
    assert sorted(len(hdf5.load(path).gaps.dropped) for path in first.iterdir()) == [8, 13]


RING = """
import os, signal
attach("--ring", "60s", "start")
emit(7)
os.kill(os.getppid(), signal.SIGUSR1)
wait_for(lambda: list(Path("{first}").glob("*.1.journal")), "what is kept")
emit(5)
attach("stop")
assert len(list(Path("{first}").glob("*.h5"))) == 2
attach("--ring", "60s", "-o", "{other}", "start")
emit(100)
os.kill(os.getppid(), signal.SIGUSR1)
wait_for(lambda: list(Path("{other}").glob("*.1.journal")), "what is kept")
emit(50)
"""


def test_a_start_takes_the_options_of_the_servers_start_unless_it_names_its_own(
    tmp_path: Path,
) -> None:
    options = ("--no-tokens", "--only-rid", "a", "--ring", "5m", "--durability", "step")
    done = recorded(tmp_path / "r", INHERITS, *options)
    paths = [Path(line) for line in done.stdout.splitlines()]
    assert len(paths) == 1
    assert hdf5.load(paths[0]).run.command[-1] == INHERITS  # the server's, as if not paused


INHERITS = """
said = attach("start")[1]
words = "--only-rid a --no-tokens --ring 300s --durability step"
assert said.endswith(f"with {words}\\n"), said
recorder = state.of_process(())
assert recorder.path.is_dir() and not recorder.choice.tokens and recorder.choice.only == ("a",)
attach("stop")
named = "--sample 1/4 --only-rid b --experts none --ring 9s --durability 50ms --buffer-mb 7"
said = attach(*named.split(), "start")[1]
words = "--sample 1/4 --only-rid b --experts none --no-tokens --ring 9s --buffer-mb 7"
assert said.endswith(f"with {words}\\n"), said
assert state.of_process(()).choice.only == ("b",)
"""


def test_nothing_is_dropped_if_the_server_takes_no_step_while_it_is_recorded(
    tmp_path: Path,
) -> None:
    """The GAP at the head stands for the steps before, not for dropped events.

    An idle ring gets a second one.
    """
    recorded(tmp_path / "r", IDLE)


IDLE = """
import time
for options in ((), ("--ring", "0.8s")):
    attach(*options, "start")
    if options: time.sleep(2)
    said = attach("stop")[1]
    assert " 0 dropped" in said, said
"""


@pytest.mark.parametrize("link", [True, False])
def test_a_folder_that_was_replaced_while_the_server_ran_is_named(
    link: bool, tmp_path: Path
) -> None:
    """`recover` builds the journals where they are now."""
    child = [sys.executable, str(CHILD), str(bundled() / "0.5.23-random.h5"), REPLACED]
    done = specdiff("record", "-o", tmp_path / "r", "--", *child, env={"LINK": "1" * link})
    assert done.returncode == 125 and "no process loaded" not in done.stderr
    assert f"{tmp_path / 'r'} was moved or replaced" in done.stderr
    (path,) = specdiff("recover", tmp_path / "moved").stdout.splitlines()
    assert len(hdf5.load(Path(path)).gaps.dropped) == 4


REPLACED = """
emit(3)
folder.rename(folder.with_name("moved"))
folder.with_name("new").mkdir()
if os.environ["LINK"]: folder.symlink_to(folder.with_name("new"))
else: folder.mkdir()
"""


def test_recover_builds_recordings_that_attach_started_in_other_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any folder a recording was started into is searched, even if `specdiff record` is dead."""
    monkeypatch.chdir(tmp_path)
    child = [sys.executable, str(CHILD), str(bundled() / "0.5.23-random.h5"), KILLED]
    assert specdiff("record", "--paused", "-o", "r", "--", *child).returncode == -signal.SIGKILL
    wait_for(lambda: not any(map(is_locked, notes(Path("r")))), "the server's end")
    kept = sorted(Path("r").glob("*.journal"))
    assert len(kept) == 1 and kept[0].stat().st_size == 3
    done = specdiff("recover", "r")
    (path,) = map(Path, done.stdout.splitlines())
    assert path.parent == tmp_path / "other" and len(hdf5.load(path).gaps.dropped) == 4
    assert done.returncode == 128 and f"kept {kept[0]}" in done.stderr  # this journal is damaged
    assert done.stderr.count("kept ") == 1
    assert [path] == list((tmp_path / "other").iterdir())


KILLED = """
import os, signal
attach("--duration", "1s", "start")
begun = state.of_process(()).path
wait_for(lambda: "not recording" in attach("status")[0], "its end")
os.truncate(begun, 3)
attach("-o", "other", "start")
emit(3)
attach("flush")
os.kill(os.getppid(), signal.SIGKILL)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_recording_can_be_addressed_by_the_folder_it_is_in(tmp_path: Path) -> None:
    """`status` and `stop` accept that folder too, not only the folder of the server's own start."""
    (tmp_path / "bystander").mkdir()
    done = recorded(tmp_path / "r", ELSEWHERE.format(tmp=tmp_path))
    assert done.stdout == ""  # it was built when it was stopped
    (path,) = (tmp_path / "other").iterdir()
    assert len(hdf5.load(path).gaps.dropped) == 4  # one for what came before


ELSEWHERE = """
from children import specdiff
def asked(folder, act):
    return specdiff("record", "--attach", "{tmp}/" + folder, act)
attach("-o", "{tmp}/other", "start")
emit(3)
assert "recording to" in asked("other", "status").stdout
assert asked("bystander", "status").returncode == 129
stopped = asked("other", "stop")
assert stopped.returncode == 0 and stopped.stdout.strip().endswith(".h5"), stopped.stderr
"""


def test_a_recording_of_attach_that_cannot_be_built_is_named(tmp_path: Path) -> None:
    """One recording ended by itself and is built. The other one is damaged and is named."""
    folder = tmp_path / "r"
    done = recorded(folder, ENDS)
    (path,) = map(Path, done.stdout.splitlines())
    assert len(hdf5.load(path).gaps.dropped) == 4
    (damaged,) = folder.glob("*.journal")
    assert f"kept {damaged}: the journal ends inside its header" in done.stderr
    assert sorted(folder.iterdir()) == sorted([path, damaged])


ENDS = """
attach("--duration", "3s", "start")
emit(3)
wait_for(lambda: "not recording" in attach("status")[0], "its end")
attach("start")
os.truncate(state.of_process(()).path, 0)
os._exit(0)
"""


def test_a_stop_that_the_disk_refuses_says_what_is_kept(tmp_path: Path) -> None:
    """Every `stop` and `flush` says so and exits with 125.

    Once there is room again, nothing is lost.
    """
    folder = tmp_path / "r"
    done = recorded(folder, REFUSED)
    assert done.stdout == ""
    (path,) = folder.iterdir()
    assert len(hdf5.load(path).gaps.dropped) == 51_001
    told = re.findall(
        r"^specdiff: kept (\S+): ([0-9,]+) bytes of events wait in process",
        done.stderr,
        re.MULTILINE,
    )
    assert (
        len(told)
        == len(re.findall("because the disk cannot be written .File too large", done.stderr))
        == 4
    )
    assert {Path(name).parent for name, _ in told} == {folder}
    assert all(int(size.replace(",", "")) > 1_000_000 for _, size in told)
    assert done.stderr.count(f"when that process has ended, run `specdiff recover {folder}`") == 3


# `attach` checks the exit status against `code`. That of `status` is 0.
REFUSED = """
import resource
attach("start")
recorder = state.of_process(())
emit(1000)
assert recorder.writer.flush(60)
room = recorder.path.stat().st_size + 100
resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
emit(50_000)
for act, code in (("stop", 125), ("stop", 125), ("flush", 125), ("status", 0)):
    print(attach(act, code=code)[1], file=sys.stderr)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
wait_for(lambda: recorder.writer.stopped, "the disk to take it")
attach("stop")
"""


def test_a_stop_whose_journal_is_gone_says_so(tmp_path: Path) -> None:
    assert "No such file" in recorded(tmp_path / "r", GONE).stderr


GONE = """
attach("start")
state.of_process(()).path.unlink()
print(attach("stop", code=125)[1], file=sys.stderr)
attach("stop")
"""
