"""`specdiff record` if nothing is recorded: the reason that it gives, and the exit status."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from children import IMPORT_ONLY, on_demand, rig, specdiff
from specdiff.fixtures.rig.release import find_release

pytestmark = pytest.mark.live


def not_recorded(command: list[str], directory: Path, status: int = 125) -> str:
    done = specdiff("record", "-o", directory, "--", *command)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert list(directory.iterdir()) == []
    return done.stderr


@pytest.mark.parametrize("flag", ["-I", "-S", "-E"])
def test_a_python_that_ignores_our_environment_records_nothing_with_exit_125(
    flag: str, tmp_path: Path
) -> None:
    said = not_recorded([sys.executable, flag, "-c", "pass"], tmp_path)
    assert "no process loaded sglang's scheduler with the recorder in it" in said


@pytest.mark.parametrize(("status", "expected"), [(0, 125), (1, 1), (3, 3)])
def test_a_command_without_sglang_keeps_its_own_failure_status(
    status: int, expected: int, tmp_path: Path
) -> None:
    not_recorded([sys.executable, "-c", f"raise SystemExit({status})"], tmp_path, expected)


def test_with_paused_a_command_without_a_scheduler_is_no_success(tmp_path: Path) -> None:
    """With --paused it is normal that nothing was recorded, but not that there was no scheduler to ask."""
    done = specdiff("record", "--paused", "-o", tmp_path, "--", "true")
    assert done.returncode == 125 and "no process loaded sglang's scheduler" in done.stderr


def test_a_command_that_cannot_start_is_a_usage_error(tmp_path: Path) -> None:
    done = specdiff("record", "-o", tmp_path, "--", "/nowhere")
    assert (done.returncode, done.stdout) == (129, "")
    assert "cannot start /nowhere: No such file or directory" in done.stderr


@pytest.mark.parametrize(
    ("version", "switch", "reason"),
    [
        *on_demand(
            (
                "0.5.10",
                "--no-spec-v2",
                "this sglang runs spec v1 unless SGLANG_ENABLE_SPEC_V2=1 is set",
            )
        ),
        ("0.5.12", "--disable-overlap", "overlap scheduling is off, so this sglang runs spec v1"),
    ],
)
def test_a_server_without_spec_v2_is_not_recorded_and_the_reason_is_given(
    version: str, switch: str, reason: str, tmp_path: Path
) -> None:
    done = specdiff("record", "-o", tmp_path, "--", *rig(version, "stale-stop", switch))
    assert done.stdout == ""
    assert reason in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_importing_the_scheduler_module_without_making_a_scheduler_records_nothing(
    tmp_path: Path,
) -> None:
    find_release("0.5.13")
    script = IMPORT_ONLY + "import sglang.srt.managers.scheduler"
    said = not_recorded([sys.executable, "-c", script, "0.5.13"], tmp_path)
    assert "but no Scheduler was made" in said


def test_a_fork_without_an_essential_site_is_not_recorded_and_the_site_is_named(
    tmp_path: Path,
) -> None:
    find_release("0.5.13")
    script = IMPORT_ONLY + (
        "import sglang.srt.managers.schedule_batch as m\n"
        "m.ScheduleBatch.renamed = m.ScheduleBatch.filter_batch\n"
        "del m.ScheduleBatch.filter_batch\n"
        "import sglang.srt.managers.scheduler\n"
    )
    said = not_recorded([sys.executable, "-c", script, "0.5.13"], tmp_path)
    assert "sglang 0.5.13 has no site for 'filter'" in said
    assert "sglang.srt.managers.schedule_batch:ScheduleBatch.filter_batch" in said
