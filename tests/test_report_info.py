"""The numbers that `specdiff info` and `specdiff recover` print about a recording, word for word."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from gaps import without
from lifting import bundled_recording
from specdiff.cli.inputs import bundled
from specdiff.cli.main import SAME, run
from specdiff.recorders import hdf5
from specdiff.recorders.journal import HEADER, Type, frames
from specdiff.recorders.recording import Recording
from specdiff.recorders.run import to_json

Capsys = pytest.CaptureFixture[str]


def rows(capsys: Capsys, path: Path) -> dict[str, str]:
    """Return what `info` prints about one recording, by the names on the left."""
    capsys.readouterr()
    assert run(["info", str(path)]) == SAME
    _, *lines = capsys.readouterr().out.splitlines()
    parted = [line.partition("  ") for line in lines]
    return {name: said.strip() for name, _, said in parted}


def failing(recording: Recording) -> Recording:
    """Return the recording as if its recorder had had exceptions and dropped events."""
    assert recording.stats is not None
    stats = dataclasses.replace(
        recording.stats,
        dropped=3,
        exceptions=2,
        first_exception="KeyError: x",
        step_ns_p50=262_400,
        step_ns_p99=1_260_000,
        prefill_ns_p50=3_000,
        prefill_ns_p99=9_000,
    )
    return dataclasses.replace(recording, stats=stats)


def test_info_shows_losses_and_overhead_of_the_recorder(tmp_path: Path, capsys: Capsys) -> None:
    whole = rows(capsys, bundled() / "0.5.23-new-weights.h5")
    assert whole["weights"] == "default, policy-1, ... policy-9; 9 changes recorded"
    assert whole["complete"] == "yes"
    recording = failing(bundled_recording("0.5.23-new-weights"))
    hdf5.save(without(without(recording, 40, 45), 20, 27), tmp_path / "cut.h5")
    cut = rows(capsys, tmp_path / "cut.h5")
    assert cut["complete"] == "yes, except for 12 events in 2 gaps"
    assert cut["recorder"] == (
        "3 events dropped, 2 exceptions (first: KeyError: x), overhead per decode step 262 us p50, "
        "1260 us p99, per prefill 3 us p50, 9 us p99"
    )


def test_one_loss_is_told_in_the_singular(tmp_path: Path, capsys: Capsys) -> None:
    recording = failing(bundled_recording("0.5.23-new-weights"))
    assert recording.stats is not None
    stats = dataclasses.replace(recording.stats, dropped=1, exceptions=1)
    hdf5.save(dataclasses.replace(recording, stats=stats), tmp_path / "one.h5")
    says = rows(capsys, tmp_path / "one.h5")["recorder"]
    assert says.startswith("1 event dropped, 1 exception (first: KeyError: x), ")
    assert run(["replay", str(tmp_path / "one.h5"), "--old", "observed"]) == SAME
    out = capsys.readouterr().out
    assert "the recorder dropped 1 event; " in out and "failed once; first: KeyError: x" in out


def test_info_counts_no_event_for_what_a_late_recording_cannot_know(
    tmp_path: Path, capsys: Capsys
) -> None:
    """Its GAP at the head says 1, which stands for any number of events before it."""
    late = without(bundled_recording("0.5.23-new-weights"), 0, 60)
    gap = dataclasses.replace(late.gaps, dropped=np.array([1]))
    late = dataclasses.replace(late, gaps=gap)
    step = late.events.iteration[1]
    hdf5.save(late, tmp_path / "late.h5")
    whole = f"yes; begins at step {step}, on a running server"
    assert rows(capsys, tmp_path / "late.h5")["complete"] == whole
    hdf5.save(without(late, 40, 45), tmp_path / "cut.h5")
    cut = whole.replace("yes", "yes, except for 5 events in 1 gap")
    assert rows(capsys, tmp_path / "cut.h5")["complete"] == cut


def test_info_says_that_a_damaged_recording_is_not_complete_and_still_where_it_begins(
    tmp_path: Path, capsys: Capsys
) -> None:
    recording = without(bundled_recording("0.5.23-new-weights"), 40, 45)
    hdf5.save(dataclasses.replace(recording, damage="byte 7 is torn"), tmp_path / "cut.h5")
    assert rows(capsys, tmp_path / "cut.h5")["complete"] == (
        "no, its end was lost (byte 7 is torn); also without 5 events in 1 gap"
    )


def test_info_names_the_rank_whose_recorder_failed(tmp_path: Path, capsys: Capsys) -> None:
    for rank in range(2):
        recording = bundled_recording(f"0.5.12-dp-idle-rank{rank}")
        made = recording if rank else failing(recording)
        hdf5.save(made, tmp_path / f"dp{rank}.h5")
    assert run(["info", str(tmp_path)]) == SAME
    said = capsys.readouterr().out.splitlines()
    failed, sound = (next(s for s in said if s.startswith(f"dp {rank}")) for rank in range(2))
    assert failed.endswith("  the recorder failed 2 times") and "262 us p50" in failed
    assert sound.endswith("  yes")


@pytest.mark.parametrize("failed", [True, False])
def test_recover_says_whether_the_recorder_failed(
    failed: bool, tmp_path: Path, capsys: Capsys
) -> None:
    recording = bundled_recording("0.5.23-random")
    stats = failing(recording).stats if failed else recording.stats
    told = [(Type.RUN, recording.run), (Type.STATS, stats)]
    data = frames([(type, to_json(one).encode()) for type, one in told])  # type: ignore[arg-type]
    (tmp_path / "r-1-0.journal").write_bytes(HEADER + data)
    assert run(["recover", str(tmp_path)]) == SAME
    said = capsys.readouterr().err
    assert ("the recorder failed 2 times, first with KeyError: x" in said) == failed
    assert ("3 dropped" in said) == failed and ("failed" in said) == failed
