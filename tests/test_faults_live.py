"""sglang's real scheduler with the recorder, under faults.

It is killed at a random moment, its disk is full, its folder is missing, or it raises mid-step.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from children import SPECDIFF, rig, specdiff, wait_for
from disks import small_disk
from faults import FULL, Tell, some_of
from specdiff.fixtures.rig.release import find_release
from specdiff.recorders import hdf5
from specdiff.recorders.capture.config import DURABILITIES
from specdiff.recorders.recording import Recording
from specdiff.recorders.recover import Recovered, recover
from specdiff.recorders.schema import Kind
from specdiff.replay import spec
from specdiff.replay.verdict import Verdict, replay

pytestmark = pytest.mark.live

PROMISE_NS = 50_000_000
PLACES = {
    "filter_batch": Kind.FILTER,
    "prepare_for_decode": Kind.PREPARE,
    "release_kv_cache": Kind.RELEASE,
}
WHILE_PROCESSING = ("release_kv_cache",)  # the rest of the result's step is missing
# While a scheduler collects garbage, up to a third of a second, it makes no events. So this one
# never collects.
NO_COLLECTOR = "import gc, runpy; gc.disable(); runpy.run_module('specdiff.fixtures.rig', None, '__main__', True)"
LONG = [sys.executable, "-c", NO_COLLECTOR]  # no test waits for it to end
LONG += ["--sglang", "0.5.13", "--scenario", "random", "--requests", "6000"]


def check_books(recording: Recording, gaps: int = 0) -> None:
    """Check that the undamaged part is a recording with the books of its release."""
    assert recording.damage is None or "the file ends inside" in recording.damage
    assert replay(recording, spec.parse("observed"), spec.parse("fixed")).verdict is Verdict.SAME
    assert len(recording.gaps.dropped) == gaps


@pytest.mark.skipif(
    not FULL, reason="takes minutes: make faults. test_record_processes has one kill"
)
@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_scheduler_killed_under_load_is_recorded_up_to_its_end(
    durability: str, tmp_path: Path, tell: Tell
) -> None:
    chance, counts = random.Random(durability), Counter[str]()
    for trial in range(5):
        folder = tmp_path / str(trial)
        recording, at = _killed(folder, durability, chance.uniform(0.1, 2.5))
        check_books(recording)
        age = at - int(recording.events.time_ns[-1])
        counts["younger than 50 ms" if age < PROMISE_NS else "older"] += 1
    tell(f"SIGKILL of a real scheduler, durability {durability}: its last event is", counts)
    assert counts["older"] == 0


def _killed(folder: Path, durability: str, after_s: float) -> tuple[Recording, int]:
    """Return the recording, and when the scheduler was killed, on the clock of the events."""
    with subprocess.Popen(
        [*SPECDIFF, "record", "-o", str(folder), "--durability", durability, "--", *LONG],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as parent:
        try:
            wait_for(lambda: _has_events(folder), "events", 300)
            (path,) = folder.glob("*.journal")
            time.sleep(after_s)
            at = time.monotonic_ns()
            os.kill(int(path.name.split("-")[-2]), signal.SIGKILL)
            output, _ = parent.communicate(timeout=120)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)
    assert parent.returncode == 128 + signal.SIGKILL
    return hdf5.load(Path(output.strip())), at


def _has_events(folder: Path) -> bool:
    return any(path.stat().st_size > 20_000 for path in folder.glob("*.journal"))


def complaints(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("specdiff:")]


def test_a_scheduler_on_a_full_disk_continues(tmp_path: Path) -> None:
    """The log says once what is wrong, and `specdiff record` says what to do.

    `make faults` also compares the tokens.
    """
    command = rig("0.5.13", "random", "--requests", "1000")
    plain, recorded = tmp_path / "plain", tmp_path / "recorded"
    if FULL:
        subprocess.run([*command, "--events", str(plain)], check=True, capture_output=True)
    with small_disk(tmp_path / "disk", 400) as disk:
        options = ["-o", str(disk), "--buffer-mb", "1"]
        done = specdiff("record", *options, "--", *command, "--events", str(recorded))
        assert len(recorded.read_text().splitlines()) >= 1000
        assert not FULL or recorded.read_text() == plain.read_text()
        said = [line for line in complaints(done.stderr) if "cannot be written: No space" in line]
        assert len(said) == 1, done.stderr
        assert done.returncode == 125 and f"specdiff recover {disk}" in done.stderr, done.stderr
        (path,) = disk.iterdir()
        assert path.stat().st_size > 350_000
        shutil.copy(path, tmp_path / path.name)
    (outcome,) = recover(tmp_path)
    assert isinstance(outcome, Recovered)
    check_books(hdf5.load(outcome.path))


@pytest.mark.parametrize("folder", some_of(("full", "missing"), 1))
def test_a_scheduler_that_cannot_be_recorded_continues(folder: str, tmp_path: Path) -> None:
    """Its folder is missing or full from the start: neither journal nor note can be written."""
    with small_disk(tmp_path / "disk", 8) as disk:
        (disk / "filler").write_bytes(bytes(8192))
        where = disk if folder == "full" else disk / "missing"
        done = subprocess.run(
            [*rig("0.5.13", "stale-stop"), "--events", str(tmp_path / "events")],
            env={**os.environ, **_recorded_into(where)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        (said,) = complaints(done.stderr)
        assert "not recorded" in said and ("No space" in said or "No such file" in said)
        assert (tmp_path / "events").stat().st_size > 0
        assert list(disk.glob("*.journal")) == []


def _recorded_into(folder: Path) -> dict[str, str]:
    from specdiff.recorders.capture.config import DIR
    from specdiff.recorders.record import _INJECT

    return {DIR: str(folder), "PYTHONPATH": f"{_INJECT}:{os.environ.get('PYTHONPATH', '')}"}


RAISES = """
import sys
from specdiff.fixtures.rig.__main__ import main
from specdiff.fixtures.rig.postimport import install_patches
place, version = sys.argv[1], sys.argv[2]
def patch(module):
    owner = getattr(module, "ScheduleBatch", module)
    original, calls = getattr(owner, place), []
    def raises(*args, **kwargs):
        calls.append(1)
        if len(calls) == 40:
            raise ValueError("sglang's own")
        return original(*args, **kwargs)
    setattr(owner, place, raises)
names = {"release_kv_cache": "sglang.srt.mem_cache.common"}
install_patches({names.get(place, "sglang.srt.managers.schedule_batch"): patch})
main(["--sglang", version, "--scenario", "random"], standalone_mode=False)
"""


@pytest.mark.parametrize("place", some_of(tuple(PLACES), 1))
def test_a_scheduler_that_raises_mid_step_is_recorded_up_to_there(
    place: str, tmp_path: Path
) -> None:
    """sglang's own exception is raised as without the recorder.

    Everything before it is recorded. A gap stands for the rest of a result that was being processed.
    """
    find_release("0.5.13")
    command = [sys.executable, "-c", RAISES, place, "0.5.13"]
    done = specdiff("record", "-o", tmp_path, "--", *command)
    assert done.returncode == 1, done.stderr
    assert "ValueError: sglang's own" in done.stderr
    recording = hdf5.load(Path(done.stdout.strip()))
    assert len(recording.event_of(PLACES[place])) == 39
    assert recording.stats is not None and recording.stats.exceptions == 0
    check_books(recording, gaps=int(place in WHILE_PROCESSING))


FINISHES = """
import sys
from specdiff.fixtures.rig.__main__ import main
from specdiff.fixtures.rig.postimport import install_patches
def patch(module):
    original, finished = module.Req.update_finish_state, []
    def raises(self, *args, **kwargs):
        original(self, *args, **kwargs)
        if self.finished_reason is not None:
            finished.append(self)
            if len(finished) == 20:
                raise ValueError("sglang's own")
    module.Req.update_finish_state = raises
install_patches({"sglang.srt.managers.schedule_batch": patch})
main(["--sglang", "0.5.23", "--scenario", "random", "--seed", "1"], standalone_mode=False)
"""


def test_a_scheduler_that_raises_before_a_finish_is_not_said_to_go_on(tmp_path: Path) -> None:
    """The result of the step is recorded, but not what it decided: a gap ends the recording."""
    find_release("0.5.23")
    done = specdiff("record", "-o", tmp_path, "--", sys.executable, "-c", FINISHES)
    assert "ValueError: sglang's own" in done.stderr
    recording = hdf5.load(Path(done.stdout.strip()))
    assert recording.stats is not None and recording.stats.closed
    assert recording.events.kind[-1] == Kind.GAP
    own = replay(recording, spec.parse("observed"), spec.parse("sglang==0.5.23"))
    assert own.verdict is Verdict.SAME
