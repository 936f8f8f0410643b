"""What a trainer does to a live server: pausing in place or with retraction, flushing, aborting a whole rollout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from children import on_demand
from lifting import against_observed, compiled, release
from recorded import RigRecorder
from specdiff.fixtures.rig.scenarios import find_scenario
from specdiff.fixtures.rig.trainer_scenarios import paused
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import ControlAct, Kind
from specdiff.replay.columns.shared import Columns
from specdiff.replay.laws.check import check
from specdiff.replay.laws.law import LawOutcome, State
from specdiff.replay.observed import observed
from test_fidelity import SEED

pytestmark = pytest.mark.live

# Release -> laws that it breaks. All except `weights` are also broken without a trainer. Weights have names from 0.5.19 on.
PLAYS = [("0.5.11", {"rows", "trainer", "returned", "stale", "sums"}), ("0.5.23", {"weights"})]


@pytest.mark.parametrize(("version", "broken"), PLAYS)
def test_a_paused_server_equals_its_release_and_breaks_only_the_known_laws(
    version: str, broken: set[str], record: RigRecorder
) -> None:
    """The rig also compares every answer with its script, so no client loses a token to a pause."""
    recording = record(version, "random", SEED, "--paused")
    _equals_its_release(recording)
    found = outcomes(recording).values()
    assert {one.law.name for one in found if one.state is State.BROKEN} == broken
    acts = recording.controls.act.tolist()
    pauses = {act: acts.count(act) for act in (ControlAct.PAUSE, ControlAct.PAUSE_RETRACT)}
    assert min(pauses.values()) > 5 and acts.count(ControlAct.CONTINUE) > 10
    assert len(recording.retracts.qid) > 5 * pauses[ControlAct.PAUSE_RETRACT]


@pytest.mark.parametrize(("version", "most"), [("0.5.11", 0), ("0.5.23", 99)])
def test_a_flush_is_recorded_only_if_the_server_carried_it_out(
    version: str, most: int, record: RigRecorder
) -> None:
    """sglang declines a flush while requests run. 0.5.11 also declines while requests wait on a paused server."""
    recording = record(version, "random", SEED, "--paused")
    asked = len(paused(find_scenario("random", SEED, None), SEED).flush_at)
    heeded = int((recording.controls.act == ControlAct.FLUSH).sum())
    assert min(most, 4) <= heeded <= min(most, asked - 4)
    assert not heeded or not _found_behind_a_flush(recording)


def _found_behind_a_flush(recording: Recording) -> int:
    """Return how many tokens the first extends after flushes found in the cache. Nothing can have filled it since."""
    extends = recording.event_of(Kind.EXTEND)
    flushes = recording.event_of(Kind.CONTROL)[recording.controls.act == ControlAct.FLUSH]
    behind = np.searchsorted(extends, flushes)
    owned = np.isin(recording.owner(Kind.EXTEND), behind)
    assert owned.any()
    return int(recording.extend_rows.prefix_len[owned].sum())


@pytest.mark.parametrize("version", on_demand("0.5.12", "0.5.23"))
def test_a_rollout_aborted_as_a_whole_equals_its_release(version: str, record: RigRecorder) -> None:
    recording = record(version, "partial-rollout", SEED)
    _equals_its_release(recording)
    assert len(recording.aborts.qid) > len(recording.rids) // 4


@pytest.mark.parametrize(
    ("version", "pause", "wrong"),
    [
        ("0.5.19", "pause_at", [0, 0, 4]),
        *on_demand(("0.5.23", "pause_retract_at", [0, 0, 0])),
    ],
)
def test_after_a_pause_in_place_tokens_in_flight_are_labeled_as_of_the_new_weights(
    version: str, pause: str, wrong: list[int], tmp_path: Path, record: RigRecorder
) -> None:
    """A pause in place leaves a result in flight. A pause that retracts waits for it.

    `wrong` counts mislabeled tokens: of the final message, then of each span.
    """
    scenario = tmp_path / f"{pause}.toml"
    scenario.write_text(
        f"{pause} = [5]\nweights_at = [6]\ncontinue_at = [7]\n\n"
        "[[request]]\nrid = 'a'\nmax_new_tokens = 30\naccept = [4]\n"
    )
    recording = record(version, str(scenario), 0)
    assert recording.run.weight_versions == ("default", "policy-1")
    assert recording.spans.weights.tolist() == [0, 1]
    found = outcomes(recording)["weights"]
    assert found.law.check(Columns(recording), observed(Columns(recording))).found.tolist() == wrong
    _equals_its_release(recording, values=10)


def outcomes(recording: Recording) -> dict[str, LawOutcome]:
    columns = Columns(recording)
    return {one.law.name: one for one in check(columns, observed(columns))}


def _equals_its_release(recording: Recording, values: int = 10_000) -> None:
    with release(recording.run.sglang_version) as source:
        found = against_observed(recording, compiled(source))
    assert not [q for q, difference in found.items() if difference.differs.any()]
    assert sum(difference.num_compared for difference in found.values()) > values
