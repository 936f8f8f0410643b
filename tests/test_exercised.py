"""The branches that a recording reached, compared with an event-by-event count."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from branches import Walk
from documented import DOCS
from gaps import without
from lifting import bundled_recording
from specdiff.cli.inputs import bundled
from specdiff.recorders import hdf5
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import NONE32, NONE64, Reason
from specdiff.replay.exercised import exercised


@pytest.mark.parametrize("path", sorted(bundled().glob("*.h5")), ids=lambda path: path.stem)
def test_branches_equal_an_event_by_event_count(path: Path) -> None:
    recording = hdf5.load(path)
    assert _reached(recording) == +Walk(recording).counts


MIXED, SESSION = "0.5.23-mixed", "0.5.14-session-hole"
NOWHERE = [  # branches that no bundled recording reaches
    ("grammar-done", MIXED, "result_rows", "grammar_done", 1),
    ("grammar-cut", MIXED, "result_rows", "num_emitted", 0),
    ("result-unpaired", MIXED, "results", "launch", NONE64),
    ("finish-stop-string", MIXED, "finishes", "reason", Reason.STOP_STRING),
    ("turn-retracted", SESSION, "saves", "reason", NONE64),
    ("turn-aborted", SESSION, "saves", "reason", Reason.ABORT),
]


@pytest.mark.parametrize(("branch", "name", "table", "column", "value"), NOWHERE)
def test_a_branch_is_counted_once_it_is_put_into_a_recording(
    branch: str, name: str, table: str, column: str, value: int
) -> None:
    recording = bundled_recording(name)
    changed = _with(recording, table, column, value)
    assert (exercised(recording)[branch], exercised(changed)[branch]) == (0, 1)


def test_the_page_explains_every_branch_in_order() -> None:
    rows = (DOCS / "books.md").read_text(encoding="utf-8").split("\n## Branches\n", 1)[1]
    listed = re.findall(r"`([^`]+)`", "".join(re.findall(r"^\| (`[^|]*)\|", rows, re.MULTILINE)))
    assert listed == list(exercised(bundled_recording(MIXED)))


def test_a_gap_counts_as_a_branch() -> None:
    recording = bundled_recording(MIXED)
    cut = without(recording, 50, 60)
    assert _reached(cut) == +Walk(cut).counts and _reached(cut)["gap"] == 1


def _reached(recording: Recording) -> dict[str, int]:
    return {branch: count for branch, count in exercised(recording).items() if count}


def _with(recording: Recording, table: str, column: str, value: int) -> Recording:
    """Return the recording with one value changed.

    In a result's rows, the first row of a decode is changed.
    """
    found = getattr(recording, table)
    values = getattr(found, column).copy()
    row = 0
    if table == "result_rows":
        row = int(np.flatnonzero(found.accept_len != NONE32)[0])
    values[row] = value
    return dataclasses.replace(recording, **{table: dataclasses.replace(found, **{column: values})})
