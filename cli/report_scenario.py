"""Write a recording as a scenario that the rig can play and that people can edit."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from ..fixtures.rig.reenact.reenact import Reenactment
from ..fixtures.rig.release import RELEASES
from ..fixtures.rig.written import write_scenario
from ..recorders.recording import Recording
from .scenario_input import reenacted


def scenario_file(recording: Recording, source: Path, output: Path) -> str:
    """Return the text of the scenario. Raises NoVerdictError if the recording cannot be played again."""
    again = reenacted(recording, source.name)
    head = "".join(f"# {line}\n" for line in _head(again, recording, source, output))
    return f"{head}\n{write_scenario(again.scenario)}"


def _head(again: Reenactment, recording: Recording, source: Path, output: Path) -> Iterator[str]:
    release = recording.run.sglang_version
    # For other versions, only the user knows where the source tree is.
    played = release if release in RELEASES else "PATH/"
    command = ["python", "-m", "specdiff.fixtures.rig", "--sglang", played]
    command += ["--scenario", str(output)]
    yield f"Made from {source.name}. To play it again and record the result:"
    yield f"    specdiff record -o DIR -- {shlex.join(command)}"
    for note in again.notes:
        yield f"- {note}"
