"""A slice of `make fidelity`: two releases and five seeds, different ones each day.

`make fidelity` itself covers every release and 50 seeds.
"""

from __future__ import annotations

import pytest

from fidelity_plays import EXTRAS
from fidelity_slice import RUNS, Slice, todays
from lifting import against_observed, compiled, release
from recorded import RigRecorder
from specdiff.fixtures.rig.release import RELEASES
from specdiff.replay.quantity import Quantity

TODAY = todays()
OTHERS = {extra.compares for extra in EXTRAS}  # random runs do not have these


@pytest.mark.parametrize("version", TODAY.releases)
def test_todays_runs_equal_the_lifted_release(version: str, record: RigRecorder) -> None:
    recording = record(version, "random", TODAY.seed, "--runs", str(RUNS))
    assert len(recording.rids) == 200 * RUNS
    with release(version) as source:
        found = against_observed(recording, compiled(source))
    for quantity, difference in found.items():
        said = f"{version} {quantity.value}: %s. This slice again: {TODAY.again}"
        assert not difference.differs.any(), said % f"{int(difference.differs.sum())} values differ"
        if quantity not in OTHERS:
            missed = int(difference.not_captured.sum())
            assert not missed, said % f"{missed} values not captured"
            assert difference.num_compared, said % "nothing compared"
    assert found.keys() == set(Quantity)


def test_every_release_is_taken_twice_in_as_many_days_as_releases() -> None:
    days = [Slice(TODAY.number + i) for i in range(len(RELEASES))]
    taken = [version for day in days for version in day.releases]
    assert sorted(taken) == sorted([*RELEASES, *RELEASES])
    assert all(day.releases[0] != day.releases[1] for day in days)
    assert len({day.seed + i for day in days for i in range(RUNS)}) == RUNS * len(days)


def test_the_environment_selects_the_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECDIFF_SLICE", "739941")
    assert todays() == Slice(739941)
    assert "seeds 3699705 to 3699709; again: SPECDIFF_SLICE=739941 make test" in str(todays())
    monkeypatch.setenv("SPECDIFF_SLICE", "tuesday")
    with pytest.raises(pytest.UsageError, match="SPECDIFF_SLICE=tuesday"):
        todays()
