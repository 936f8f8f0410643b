"""Replays in other processes: the same answers, whatever becomes of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import active_children
from pathlib import Path

import pytest

from children import wait_for
from specdiff.cli.inputs import bundled, one
from specdiff.cli.main import INTERRUPTED, run
from specdiff.recorders import hdf5
from specdiff.replay.lift import crew
from specdiff.replay.lift.crew import Crew
from specdiff.replay.lift.open import surface_of
from specdiff.replay.lift.tape import Tape
from specdiff.replay.quantity import Quantity
from specdiff.replay.spec import Lifted, Origin

MIX = bundled() / "0.5.10-random.h5"
BISECT = ["bisect", str(MIX), "--good", "sglang==0.5.10", "--bad", "sglang==0.5.16"]
COMMANDS = [
    [*BISECT, "--quantity", "kv_committed_len"],
    [*BISECT, "--against", "sglang==0.5.11", "--skip", "0.5.13"],
    ["bisect", str(MIX), "--good", "sglang==0.5.16", "--bad", "sglang==0.5.10"],
    ["history", str(MIX), "--quantity", "released_len"],
    ["replay", str(MIX), "--old", "sglang==0.5.11", "--fixed", "sglang==0.5.12"],
    ["replay", str(MIX), "--old", "observed", "--fixed", "sglang==0.5.12", "--quantity", "finish"],
]


@contextmanager
def two_cores() -> Iterator[pytest.MonkeyPatch]:
    """With recordings of any size worth a crew."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(crew, "_WORTH_IT", 0)
        patched.setattr(crew, "_cores", lambda: 2)
        yield patched


def told(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = run([*arguments, "--format", "json"])
    return code, *capsys.readouterr()


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda words: words[0])
def test_a_crew_changes_no_answer(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    alone = told(arguments, capsys)
    asked: list[bool] = []
    said = Crew._said

    def counted(self: Crew, *given: object) -> object:
        found = said(self, *given)  # type: ignore[arg-type]
        asked.append(found is not None)
        return found

    with two_cores() as patched:
        patched.setattr(Crew, "_said", counted)
        assert told(arguments, capsys) == alone
    assert any(asked), "nobody was asked"
    assert not active_children()


def test_a_crew_that_is_killed_changes_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = COMMANDS[0]
    alone = told(arguments, capsys)
    load, killed = hdf5.load, []

    def killing(path: Path) -> object:
        killed.extend(active_children())
        for process in killed:
            process.kill()
        return load(path)

    with two_cores() as patched:
        patched.setattr(hdf5, "load", killing)
        assert told(arguments, capsys) == alone
    assert len(killed) == 2


def test_a_crew_that_read_another_file_is_not_believed(tmp_path: Path) -> None:
    """The recording was replaced between the crew's look at it and ours."""
    tape, path = Tape.of(hdf5.load(MIX)), Lifted("sglang==0.5.11", Origin.RELEASE, "0.5.11")
    surface, wanted = surface_of(path), (Quantity.FINISH,)
    with two_cores(), crew.crew_of(MIX, wanted, [path]) as made:
        assert made is not None
        made.sha256 = "another"
        assert made.tracks(surface, tape) is None
        _, made.sha256 = one(MIX)
        tracks = made.tracks(surface, tape)
        assert tracks is not None
        assert tracks.values


def test_an_interrupt_ends_the_crew_too(tmp_path: Path) -> None:
    """As the terminal sends it: to every process of the command at once, at any moment of their lives."""
    script = tmp_path / "with_crew.py"
    script.write_text(
        "import sys\n"
        "from specdiff.cli.main import main\n"
        "from specdiff.replay.lift import crew\n"
        "if __name__ == '__main__':\n"
        "    crew._WORTH_IT, crew._cores = 0, lambda: 2\n"
        "    sys.exit(main())\n"
    )
    for wait in (0.0, 0.1, 0.2, 0.4, 0.8):
        interrupt([sys.executable, str(script), *COMMANDS[0]], wait)


def interrupt(command: list[str], wait: float) -> None:
    """`wait`: in seconds, from when the crew has started."""
    child = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    wait_for(lambda: len(group(child.pid)) > 2 or child.poll() is not None, "its crew")
    time.sleep(wait)
    with suppress(ProcessLookupError):  # it has ended, and says below why
        os.killpg(child.pid, signal.SIGINT)
    _, err = child.communicate()
    assert (child.returncode, err) == (INTERRUPTED, "")
    wait_for(lambda: not group(child.pid), "the end of all")


def group(leader: int) -> list[int]:
    """The processes of this process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(text.rpartition(")")[2].split()[2]) == leader:
            found.append(int(stat.parent.name))
    return found
