"""The command that is recorded: signals, folders and options around it, and the secrets in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from children import SPECDIFF, rig, specdiff, wait_for
from recorded import record
from specdiff.recorders.command import without_secrets

pytestmark = pytest.mark.live


LINGERS = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, lambda *_: sys.exit(Path(sys.argv[1]).write_text("terminated")))
Path(sys.argv[1]).write_text("ready")
time.sleep(60)
"""


def test_sigterm_reaches_those_who_outlive_the_command(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    command = ["sh", "-c", '"$@" & exit 3', "sh", sys.executable, "-c", LINGERS, str(seen)]
    with subprocess.Popen(
        [*SPECDIFF, "record", "-o", str(tmp_path / "out"), "--", *command],
        stderr=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stderr is not None
        assert "waiting for" in parent.stderr.readline()
        wait_for(lambda: seen.exists() and seen.read_text() == "ready", "the child")
        parent.terminate()
        _, said = parent.communicate(timeout=30)
    assert parent.returncode == 3
    assert seen.read_text() == "terminated"
    assert "SIGTERM is passed on to" in said


def test_folder_that_goes_away_does_not_cost_the_status(tmp_path: Path) -> None:
    done = specdiff(
        "record", "-o", tmp_path / "out", "--", "sh", "-c", f"rmdir {tmp_path}/out; exit 7"
    )
    assert done.returncode == 7
    assert "cannot be listed" in done.stderr and "Traceback" not in done.stderr


def test_misspelt_option_is_named(tmp_path: Path) -> None:
    done = specdiff("record", "--ouptut", tmp_path, "--", "true")
    assert done.returncode == 129
    assert "--ouptut" in done.stderr and "Missing option" not in done.stderr


def test_secrets_reach_the_command_but_not_the_disk(tmp_path: Path) -> None:
    recording, _ = record(
        tmp_path / "out",
        ["env", "HF_TOKEN=hf-1", *rig("0.5.13", "stale-stop")],
    )
    assert recording.run.command[:2] == ("env", "HF_TOKEN=***")


@pytest.mark.parametrize(
    ("command", "recorded"),
    [
        (["--api-key", "sk-1", "x"], ["--api-key", "***", "x"]),
        (["--api-key=sk-1"], ["--api-key=***"]),
        (["--Admin_Password", "-x"], ["--Admin_Password", "***"]),
        (["--hf-token", "--other", "v"], ["--hf-token", "--other", "v"]),
        (
            ["sh", "-c", "serve --api-key sk-1 --port 1"],
            ["sh", "-c", "serve --api-key *** --port 1"],
        ),
        (["--client-secret=a=b"], ["--client-secret=***"]),
        (["--speculative-num-draft-tokens", "4"], ["--speculative-num-draft-tokens", "4"]),
        (["--tokenizer-path", "p"], ["--tokenizer-path", "p"]),
        (["--model", "m"], ["--model", "m"]),
    ],
)
def test_secrets_are_hidden_in_the_recorded_command(
    command: list[str], recorded: list[str]
) -> None:
    assert without_secrets(command) == tuple(recorded)
