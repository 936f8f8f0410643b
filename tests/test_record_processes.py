"""Processes: where the recorded scheduler runs, how the recorder gets into it, and what a kill leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from children import IMPORT_ONLY, SPECDIFF, python, rig, specdiff, wait_for
from recorded import check_pairing, record
from specdiff.fixtures.rig.release import find_release
from specdiff.recorders import hdf5
from specdiff.recorders.processes import pids_with_env
from specdiff.recorders.recover import is_locked

pytestmark = pytest.mark.live


SPAWNED = """
import multiprocessing, os, signal, sys, time
from specdiff.fixtures.rig.__main__ import main
def serve(version):
    try:
        main(["--sglang", version, "--scenario", "stale-stop"], standalone_mode=False)
    finally:
        time.sleep(0.2)  # the writer wakes every 50 ms
        os.kill(os.getpid(), signal.SIGKILL)  # as sglang ends its schedulers
if __name__ == "__main__":
    import time
    process = multiprocessing.get_context(sys.argv[2]).Process(target=serve, args=(sys.argv[1],))
    process.start()
    process.join()
"""


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_scheduler_in_its_own_process_is_recorded_although_it_is_killed(
    method: str, tmp_path: Path
) -> None:
    find_release("0.5.13")
    script = tmp_path / "serve.py"
    script.write_text(SPAWNED)
    recording, _ = record(tmp_path / "out", [sys.executable, str(script), "0.5.13", method])
    assert len(recording.rids) == 8
    assert recording.run.command[-1] == method


def test_record_waits_for_a_scheduler_that_outlives_its_launcher(tmp_path: Path) -> None:
    command = " ".join(rig("0.5.13", "stale-stop"))
    recording, said = record(tmp_path / "out", ["sh", "-c", f"{command} & exit 0"])
    assert "waiting for" in said
    assert len(recording.rids) == 8


CHANGES = """#!/bin/sh
[ "$1" -gt 0 ] && exec "$0" $(($1 - 1))
"""


def test_a_process_is_found_also_while_it_executes_another_program(tmp_path: Path) -> None:
    """During `exec` it has no environment for a moment. If that counted as gone, its recording would be lost."""
    script = tmp_path / "changes"
    script.write_text(CHANGES)
    script.chmod(0o755)
    looks = 0
    with subprocess.Popen([script, "400"], env={**os.environ, "MARK": str(tmp_path)}) as changing:
        while True:
            found = pids_with_env(f"MARK={tmp_path}")
            if changing.poll() is not None:
                break
            looks += 1
            assert found == {changing.pid}
    assert looks > 10


BOTH = (
    IMPORT_ONLY
    + """
from specdiff.recorders.capture.plugin import register
import os
register()
import sglang.srt.managers.scheduler as module
from sglang.srt.plugins import load_plugins
load_plugins()
register()
depth, function = 0, module.Scheduler.run_batch
while hasattr(function, "__wrapped__"):
    depth, function = depth + 1, function.__wrapped__
print("depth", depth)
"""
)


def test_the_plugin_alone_attaches_the_recorder(tmp_path: Path) -> None:
    find_release("0.5.13")
    done = python(BOTH, "0.5.13", env={"SPECDIFF_RECORD_DIR": str(tmp_path)})
    assert done.stdout.strip() == "depth 1", done.stderr
    assert len(list(tmp_path.glob("*.attach.json"))) == 1


def test_plugin_and_injection_together_attach_the_recorder_once(tmp_path: Path) -> None:
    find_release("0.5.13")
    done = specdiff("record", "-o", tmp_path, "--", sys.executable, "-c", BOTH, "0.5.13")
    assert done.stdout.strip() == "depth 1", done.stderr


def test_the_plugin_does_nothing_without_a_recording() -> None:
    find_release("0.5.13")
    assert python(BOTH, "0.5.13").stdout.strip() == "depth 0"


def test_a_killed_server_leaves_a_recording(tmp_path: Path) -> None:
    command = rig("0.5.13", "random", "--requests", "3000")
    with subprocess.Popen(
        [*SPECDIFF, "record", "-o", str(tmp_path), "--", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        journal = wait_for_journal(tmp_path)
        os.kill(int(journal.name.split("-")[-2]), signal.SIGKILL)
        output, _ = parent.communicate(timeout=120)
    assert parent.returncode == 128 + signal.SIGKILL
    recording = hdf5.load(Path(output.strip()))
    assert len(recording.results.launch) > 10
    assert recording.stats is None or not recording.stats.closed


def test_after_specdiff_record_is_killed_the_server_goes_on_and_can_be_recovered(
    tmp_path: Path,
) -> None:
    command = rig("0.5.13", "random", "--requests", "1500")
    out, done = tmp_path / "out", tmp_path / "done"
    with subprocess.Popen(
        [*SPECDIFF, "record", "-o", str(out), "--", *command, "--events", str(done)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as parent:
        wait_for_journal(out)
        parent.kill()
        parent.wait()
    early = specdiff("recover", out)
    assert (early.returncode, early.stdout) == (0, "")
    assert "a process still writes to it" in early.stderr
    wait_for(done.exists, "the server to go on to its end", 120)
    wait_for(lambda: not any(map(is_locked, out.iterdir())), "the process to end")
    assert specdiff("recover", out).returncode == 0
    (path,) = out.iterdir()
    recording = hdf5.load(path)
    assert len(recording.rids) == 1500
    check_pairing(recording)


def wait_for_journal(directory: Path) -> Path:
    def grown() -> list[Path]:
        if not directory.is_dir():
            return []
        return [path for path in directory.glob("*.journal") if path.stat().st_size > 50_000]

    wait_for(grown, "the journal to grow")
    return grown()[0]
