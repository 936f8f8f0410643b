"""Replays in other processes give the same answers, even if those processes fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from children import wait_for
from specdiff.cli.inputs import bundled
from specdiff.cli.main import INTERRUPTED, run
from specdiff.recorders import hdf5
from specdiff.replay.lift import worker_pool, worker_process
from specdiff.replay.lift.open import surface_of
from specdiff.replay.lift.tape import Tape
from specdiff.replay.lift.worker_pool import WorkerPool
from specdiff.replay.quantity import Quantity
from specdiff.replay.spec import Lifted, Origin

MIX, OTHER = bundled() / "0.5.10-random.h5", bundled() / "0.5.23-random.h5"
BISECT = ["bisect", str(MIX), "--good", "sglang==0.5.10", "--bad", "sglang==0.5.16"]
COMMANDS = [
    [*BISECT, "--quantity", "kv_committed_len"],
    [*BISECT, "--against", "sglang==0.5.11", "--skip", "0.5.13"],
    [*BISECT, "--against", "observed"],
    ["bisect", str(MIX), "--good", "sglang==0.5.16", "--bad", "sglang==0.5.10"],
    ["history", str(MIX), "--quantity", "released_len"],
    ["replay", str(MIX), "--old", "sglang==0.5.11", "--fixed", "sglang==0.5.12"],
    ["replay", str(MIX), "--old", "observed", "--fixed", "sglang==0.5.12", "--quantity", "finish"],
]


@contextmanager
def two_cores() -> Iterator[pytest.MonkeyPatch]:
    """Pretend to have two cores, and make a worker pool worthwhile for recordings of any size."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(worker_pool, "_WORTH_IT", 0)
        patched.setattr(worker_pool, "cores", lambda: 2)
        yield patched


def told(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = run([*arguments, "--format", "json"])
    return code, *capsys.readouterr()


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda words: words[0])
def test_a_worker_pool_changes_no_answer(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    alone = told(arguments, capsys)
    asked: list[bool] = []
    said = WorkerPool._outcome

    def counted(self: WorkerPool, *given: object) -> object:
        found = said(self, *given)  # type: ignore[arg-type]
        asked.append(found is not None)
        return found

    with two_cores() as patched:
        patched.setattr(WorkerPool, "_outcome", counted)
        assert told(arguments, capsys) == alone
    assert any(asked), "the pool answered nothing"


def test_a_worker_pool_that_is_killed_changes_no_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = copy(MIX, tmp_path / "r.h5")
    arguments = ["bisect", str(file), *COMMANDS[0][2:]]
    alone = told(arguments, capsys)
    load, killed = hdf5.load, []

    def killing(path: Path) -> object:
        killed.extend(workers_of(file))
        for process in killed:
            os.kill(process, signal.SIGKILL)
        return load(path)

    with two_cores() as patched:
        patched.setattr(hdf5, "load", killing)
        assert told(arguments, capsys) == alone
    assert len(killed) == 2


def copy(recording: Path, to: Path) -> Path:
    to.write_bytes(recording.read_bytes())
    return to


def test_a_replay_that_fails_does_not_stop_the_pool(capsys: pytest.CaptureFixture[str]) -> None:
    """No release before 0.5.14 can replay DFLASH. The pool continues with the others."""
    arguments = ["history", str(bundled() / "0.5.14-dflash.h5"), "--quantity", "finish"]
    alone = told(arguments, capsys)
    said, heard = WorkerPool._outcome, []

    def hearing(self: WorkerPool, *given: object) -> object:
        heard.append(found := said(self, *given))  # type: ignore[arg-type]
        return found

    with two_cores() as patched:
        patched.setattr(WorkerPool, "_outcome", hearing)
        assert told(arguments, capsys) == alone
    assert heard.count(None) > 2
    assert heard[-1] is not None


@pytest.mark.parametrize("what", ["subprocess.Popen", "TemporaryDirectory", "pickle.dumps"])
def test_the_answer_is_the_same_if_no_worker_pool_can_be_started(
    what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    alone, attempts = told(COMMANDS[0], capsys), []

    def refused(*args: object, **kwargs: object) -> None:
        attempts.append(args)
        raise BlockingIOError("no more processes")

    with two_cores() as patched:
        patched.setattr(f"{worker_pool.__name__}.{what}", refused)
        assert told(COMMANDS[0], capsys) == alone
    assert attempts


@pytest.mark.parametrize("replaced", ["never", "before it is read", "when it has been"])
def test_results_of_a_worker_pool_that_read_a_replaced_file_are_discarded(
    replaced: str, tmp_path: Path
) -> None:
    path, wanted = Lifted("sglang==0.5.11", Origin.RELEASE, "0.5.11"), (Quantity.FINISH,)
    file, other = copy(MIX, tmp_path / "r.h5"), copy(OTHER, tmp_path / "other.h5")
    with two_cores(), worker_pool.worker_pool_of(file, wanted, [path], 2) as made:
        assert made is not None
        if replaced == "when it has been":
            wait([*made._whole.values()])
        if replaced != "never":
            other.replace(file)
        tape = Tape.of(hdf5.load(file))
        made.confirm()
        assert (made.tracks(surface_of(path), tape) is None) is (replaced != "never")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_of_the_worker_pool_outlives_the_command(
    number: signal.Signals, tmp_path: Path
) -> None:
    """Ctrl-C reaches all processes, as from a terminal. SIGKILL reaches only the command."""
    script, file = tmp_path / "with_workers.py", copy(MIX, tmp_path / "r.h5")
    script.write_text(SLOW)
    child = subprocess.Popen(
        [sys.executable, str(script), "bisect", str(file), *COMMANDS[0][2:]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert child.stderr is not None
    assert child.stderr.readline().startswith("1 of 11")
    assert len(workers_of(file)) == 2
    (os.killpg if number == signal.SIGINT else os.kill)(child.pid, number)
    _, said = child.communicate()
    assert child.returncode == (INTERRUPTED if number == signal.SIGINT else -number)
    assert "Traceback" not in said
    wait_for(lambda: not workers_of(file), "the end of all")


SLOW = """
import signal, sys, time
from specdiff.cli.main import main
from specdiff.replay.lift import worker_pool

def slowly(*given, departs=worker_pool.WorkerPool.departs):
    time.sleep(1)
    return departs(*given)

# The process that runs the tests may ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
worker_pool._WORTH_IT, worker_pool.cores, worker_pool.WorkerPool.departs = 0, lambda: 2, slowly
sys.exit(main())
"""


def workers_of(file: Path) -> list[int]:
    """Return the worker processes that replay this file."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):
            words = path.read_text().split("\0")
            if str(file) in words and any(worker_process.__name__ in word for word in words):
                found.append(int(path.parent.name))
    return found
