"""A recording as a scenario that the rig plays, and people edit."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from ..fixtures.rig.reenact.reenact import Reenactment
from ..fixtures.rig.releases import RELEASES
from ..fixtures.rig.written import write_scenario
from ..recorders.recording import Recording
from .scenarios import reenacted


def scenario_file(recording: Recording, source: Path, output: Path) -> str:
    """Raises NoVerdictError where it cannot be played again."""
    again = reenacted(recording, source.name)
    head = "".join(f"# {line}\n" for line in _head(again, recording, source, output))
    return f"{head}\n{write_scenario(again.scenario)}"


def _head(again: Reenactment, recording: Recording, source: Path, output: Path) -> Iterator[str]:
    release = recording.run.sglang_version
    # Where a source tree lies only its user knows.
    played = release if release in RELEASES else "PATH/"
    command = ["python", "-m", "specdiff.fixtures.rig", "--sglang", played]
    command += ["--scenario", str(output)]
    yield f"{source.name}. To play it again, and record that:"
    yield f"    specdiff record -o DIR -- {shlex.join(command)}"
    for note in again.notes:
        yield f"- {note}"
