"""Drafts of adaptive length: the length changes between a launch and its result.

Recorded from sglang's own switch, and replayed. Also covers #23336.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from children import EVERYTHING, on_demand, rig, specdiff
from lifting import Changed, against_observed, compiled, release
from recorded import RigRecorder
from specdiff.recorders import hdf5
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import NONE64
from specdiff.replay.columns.shared import Columns
from specdiff.replay.diff import diff
from specdiff.replay.exercised import exercised
from specdiff.replay.explain import Toggles
from specdiff.replay.laws.check import check
from specdiff.replay.laws.law import LawOutcome
from specdiff.replay.observed import observed
from specdiff.replay.quantity import Quantity as Q
from test_fidelity import fixes_of

SEED = 2
DOWNSWITCH = Path(__file__).parent.parent / "fixtures" / "scenarios" / "23336-downswitch.toml"


@pytest.mark.parametrize(
    ("version", "scenario", "strides"),
    [
        *on_demand(("0.5.12", "adaptive-random", {2, 3, 4, 6})),
        ("0.5.23", "adaptive-random", {2, 3, 4, 6}),
        *on_demand(("0.5.23", "adaptive-zero", {1, 2, 3, 4})),
    ],
)
def test_the_lifted_release_and_its_fixes_equal_observed(
    version: str, scenario: str, strides: set[int], record: RigRecorder
) -> None:
    recording = record(version, scenario, SEED)
    assert set(recording.results.stride.tolist()) - {NONE64} == strides
    reached = exercised(recording)
    assert reached["draft-length-changed"] > 10 and reached["stale-finished-many"]
    with release(version) as source:
        found = against_observed(recording, compiled(source))
    for quantity, difference in found.items():
        assert not difference.differs.any(), quantity
        if quantity not in (Q.INDEXER_TOPK, Q.SESSION_COMMITTED):  # this server has neither
            assert difference.num_compared == len(difference.old.cells) > 0, quantity
    columns = Columns(recording)
    rules = Toggles(columns)(fixes_of(version))
    assert not any(one.differs.any() for one in diff(recording, observed(columns), rules))
    laws = _laws(recording)
    assert not laws["stride"].num_broken and not laws["allocation"].num_broken
    assert laws["stride"].num_checked > 100 and laws["allocation"].num_checked > 500


@pytest.mark.skipif(not EVERYTHING, reason="half a minute: only if all releases are tested")
def test_a_shorter_draft_in_flight_breaks_the_books_of_0_5_11_but_not_of_0_5_12(
    tmp_path: Path, record: RigRecorder
) -> None:
    """Release 0.5.11 refuses to switch under overlap.

    The rig removes the refusal, and the books break. Those of 0.5.12 hold.
    """
    done = specdiff("record", "-o", tmp_path, "--", *rig("0.5.11", str(DOWNSWITCH)))
    assert done.returncode != 0 and "pool is too small" in done.stderr
    (path,) = tmp_path.glob("*.h5")
    broken, fixed = _laws(hdf5.load(path)), _laws(record("0.5.12", str(DOWNSWITCH), 0))
    sliced, shrunk = broken["stride"].first, broken["allocation"].first
    assert sliced is not None and (sliced.found, sliced.low) == (2, 4)
    assert shrunk is not None and shrunk.found < shrunk.low
    for law in ("stride", "allocation", "commit"):
        assert broken[law].num_broken, law
        assert fixed[law].num_checked and not fixed[law].num_broken, law


PROCESSOR = "srt/managers/scheduler_components/batch_result_processor.py"
BROKEN = {
    "a prepare may take slots back": (
        "0.5.12",
        "srt/speculative/eagle_info_v2.py",
        "prepare_for_decode",
        "max(cur, r.kv_committed_len + double_alloc)",
        "r.kv_committed_len + double_alloc",
        Q.KV_ALLOCATED_LEN,
    ),
    "a result is sliced with the worker's stride": (
        "0.5.23",
        PROCESSOR,
        "_resolve_spec_v2_tokens",
        "stride = _get_speculative_output_stride(result)",
        "stride = self.model_worker.speculative_num_draft_tokens",
        Q.KV_COMMITTED_LEN,
    ),
    "slots for what is drafted now, not for the most that may be": (
        "0.5.23",
        "srt/mem_cache/allocation_sizing.py",
        "get_alloc_len_per_decode",
        "spec_tokens = max_speculative_num_draft_tokens()",
        "spec_tokens = spec.speculative_num_draft_tokens",
        Q.KV_ALLOCATED_LEN,
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_copy_of_the_release_differs_from_observed(what: str, record: RigRecorder) -> None:
    version, path, function, old, new, shows = BROKEN[what]
    with release(version) as source:
        broken = compiled(Changed(source, path, function, old, new))
    found = against_observed(record(version, "adaptive-random", SEED), broken)
    assert found[shows].differs.any()


def test_a_prepare_uses_the_recorded_draft_length_and_without_it_is_not_captured(
    record: RigRecorder,
) -> None:
    """Up to 0.5.12.post1, a prepare uses the draft length that the worker has at that moment."""
    recording = record("0.5.12", "adaptive-random", SEED)
    prepares, lengths = recording.prepares, []
    for column in (prepares.num_draft_tokens - 1, np.full_like(prepares.num_steps, NONE64)):
        told = {"num_steps": column, "num_draft_tokens": column}
        changed = dataclasses.replace(recording, prepares=dataclasses.replace(prepares, **told))
        with release("0.5.12") as source:
            lengths.append(against_observed(changed, compiled(source))[Q.KV_ALLOCATED_LEN])
    wrong, untold = lengths
    assert wrong.differs.any()
    assert not untold.differs.any() and untold.not_captured.any()


def _laws(recording: Recording) -> dict[str, LawOutcome]:
    columns = Columns(recording)
    return {one.law.name: one for one in check(columns, observed(columns))}
