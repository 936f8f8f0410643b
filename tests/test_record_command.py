"""The recorded command: signals that are passed on, its exit status, and hiding secrets."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from children import SPECDIFF, rig, specdiff, wait_for
from recorded import record
from specdiff.recorders.command import shortened, without_secrets

pytestmark = pytest.mark.live


LINGERS = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, lambda *_: sys.exit(Path(sys.argv[1]).write_text("terminated")))
Path(sys.argv[1]).write_text("ready")
time.sleep(60)
"""


def test_sigterm_reaches_processes_that_outlive_the_command(tmp_path: Path) -> None:
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
    assert "passing SIGTERM on to" in said


def test_deleting_the_output_folder_does_not_change_the_exit_status(tmp_path: Path) -> None:
    done = specdiff(
        "record", "-o", tmp_path / "out", "--", "sh", "-c", f"rmdir {tmp_path}/out; exit 7"
    )
    assert done.returncode == 7
    assert "cannot be listed" in done.stderr and "Traceback" not in done.stderr


def test_a_misspelled_option_is_named(tmp_path: Path) -> None:
    done = specdiff("record", "--ouptut", tmp_path, "--", "true")
    assert done.returncode == 129
    assert "--ouptut" in done.stderr and "Missing option" not in done.stderr


def test_a_secret_in_the_environment_reaches_the_command_but_not_the_recording(
    tmp_path: Path,
) -> None:
    secret, seen = "hf-0123456789abcdef", tmp_path / "seen"
    command = [
        "env",
        f"HF_TOKEN={secret}",
        "sh",
        "-c",
        f'echo "$HF_TOKEN" > {seen}; exec "$@"',
        "sh",
    ]
    recording, said = record(tmp_path / "out", [*command, *rig("0.5.13", "stale-stop")])
    assert seen.read_text().strip() == secret
    assert recording.run.command[:2] == ("env", "HF_TOKEN=***")
    assert secret not in repr(recording) + repr(recording.run) + said


@pytest.mark.parametrize(("argument", "count"), [("x" * 2000, 70), ("é" * 500, 50)])
def test_a_long_command_starts_under_specdiff_and_is_recorded_shortened(
    argument: str, count: int, tmp_path: Path
) -> None:
    """An environment variable has less room than a command, and JSON escapes make it longer."""
    shows = "import os, sys; print(len(sys.argv), os.environ['SPECDIFF_RECORD_OPTIONS'])"
    command = [sys.executable, "-c", shows, *[argument] * count]
    done = specdiff("record", "-o", tmp_path, "--", *command)
    num_arguments, options = done.stdout.split(maxsplit=1)
    assert (done.returncode, int(num_arguments)) == (125, 1 + count), done.stderr
    *first, last = json.loads(options)["command"]
    kept = len(first) - 3
    assert first == command[: len(first)] and 5 <= kept < count
    assert last == f"... ({(count - kept) * len(argument.encode()):,} more bytes)"


def test_a_command_that_is_not_too_long_is_recorded_whole() -> None:
    command = ("python", "-c", "x" * 30_000)
    assert shortened(command) == command
    assert shortened(("sh", "\udce9" * 30_000)) == ("sh", "... (30,000 more bytes)")


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
        (["--env=HF_TOKEN=hf-1", "-eHF_TOKEN=hf-1"], ["--env=HF_TOKEN=***", "-eHF_TOKEN=***"]),
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


@pytest.mark.parametrize(
    ("script", "recorded"),
    [
        ("x --api-key sk-1 --port 1", "x --api-key *** --port 1"),
        ("export API_KEY+=sk-1 && x", "export API_KEY+=*** && x"),
        ("export API_KEY=${K:-sk 1} && x", "export API_KEY=*** && x"),
        ("export API_KEY=$(vault $(cat p) sk-1) && x", "export API_KEY=*** && x"),
        ("export API_KEY=$(vault 'a)' sk-1) && x", "export API_KEY=***"),
        ('x --api-key "$(cat "a b")" -p 1', "x --api-key ***"),
        ('x "API_KEY=of $(echo "x sk-1") "', 'x "API_KEY=***'),
        ('x --api-key "sk 1" --port 1', "x --api-key *** --port 1"),
        ("x --api-key 'sk 1' --port 1", "x --api-key *** --port 1"),
        ('x --api-key="sk 1" --port 1', "x --api-key=*** --port 1"),
        ("x --api-key='sk 1'; y", "x --api-key=***; y"),
        ('x "--api-key=sk 1" -p 1', 'x "--api-key=*** -p 1'),
        ("x '--api-key' 'sk 1' -p 1", "x '--api-key' *** -p 1"),
        ('x --api-key "a token=sk 1" -p 1', "x --api-key *** -p 1"),
        ("x --api-key \\\n 'sk 1' \\\n -p 1", "x --api-key \\\n *** \\\n -p 1"),
        ("x --api-key sk\\ 1\"sk '1\"'sk \"1' -p 1", "x --api-key *** -p 1"),
        ('x --api-key "sk \\" 1" -p 1', "x --api-key *** -p 1"),
        ("x --api-key $'sk \\' 1' -p 1", "x --api-key *** -p 1"),
        ("x --api-key $(echo sk 1 | rev) -p 1", "x --api-key *** -p 1"),
        ('sh -c "x --api-key \\"sk 1\\" -p 1"', 'sh -c "x --api-key *** -p 1"'),
        ("sh -c \"x --api-key 'sk 1' -p 1\"", 'sh -c "x --api-key *** -p 1"'),
        ('sh -c "x \\"--api-key\\" \\"sk 1\\" -p"', 'sh -c "x \\"--api-key\\" *** -p"'),
        ("sh -c 'x --api-key sk-1' && y -p 1", "sh -c 'x --api-key *** && y -p 1"),
        ("sh -c 'x --api-key sk-1'; y --key 'sk 2' -p 1", "sh -c 'x --api-key *** -p 1"),
        ("export HF_TOKEN=hf-1; x -p 1", "export HF_TOKEN=***; x -p 1"),
        ("cd /x && HF_TOKEN=hf-1 Y=1 x", "cd /x && HF_TOKEN=*** Y=1 x"),
        ("env my_password='sk 1' x", "env my_password=*** x"),
        ('docker run -e "HF_TOKEN=sk 1" -p 1', 'docker run -e "HF_TOKEN=*** -p 1'),
        ("x --use-key && y --keys; z --key --port 1", None),
        ("export TOKENIZERS_PARALLELISM=1; x --max-tokens 4 --num-tokens='4'", None),
    ],
)
def test_secrets_are_hidden_in_a_shell_script(script: str, recorded: str | None) -> None:
    assert without_secrets(["sh", "-c", script]) == ("sh", "-c", recorded or script)


def _double_quoted(text: str) -> str:
    return '"' + re.sub(r'([\\"$`])', r"\\\1", text) + '"'


_quotes = st.sampled_from((shlex.quote, _double_quoted))
_SCRIPTS = (
    ("x --api-key {} -p 1", ""),
    ("x --api-key={}; y", ""),
    ("export HF_TOKEN={} && y", ""),
    ("x --api-key {0} && y --hf-token {0} -p 1", ""),
    ("x -e {} -p 1", "HF_TOKEN="),
)


@given(
    st.sampled_from(_SCRIPTS),
    st.text("Z ;&|$`()\n'\"\\", max_size=8),
    _quotes,
    st.lists(_quotes, max_size=2),
)
def test_no_part_of_a_quoted_value_is_left(
    form: tuple[str, str],
    value: str,
    quote: Callable[[str], str],
    around: list[Callable[[str], str]],
) -> None:
    (script, name), z = form, f"Z{value}Z"
    if around:  # quotes inside a value are not parsed in nested scripts
        z = re.sub(r"""['"\\]""", "", z)
    script = script.format(quote(name + z))
    for outer in around:
        script = f"sh -c {outer(script)} && y"
    assert "Z" not in without_secrets(["sh", "-c", script])[2]
