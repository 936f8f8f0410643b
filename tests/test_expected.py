"""The path `expected`: the fixes that the recorded server should have."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from lifting import bundled_recording
from specdiff.cli.inputs import bundled
from specdiff.cli.main import DIFFERS, SAME, run
from specdiff.recorders.recording import Recording
from specdiff.replay import spec
from specdiff.replay.quantity import Quantity
from specdiff.replay.shrink.shrink import shrink_to_divergence
from specdiff.replay.timeline import timelines
from specdiff.replay.verdict import ReplayResult, Verdict, replay

EXPECTED = spec.parse("expected")
OBSERVED = spec.parse("observed")
CLAIMS, NO_CLAIMS = "fixed", "fixed-22651"
LENGTHS = (Quantity.KV_COMMITTED_LEN, Quantity.KV_COMMITTED_LEN_SETTLED)


def of_server(recording: Recording, quantities: Sequence[Quantity] | None = None) -> ReplayResult:
    return replay(recording, OBSERVED, EXPECTED, quantities)


@pytest.mark.parametrize(
    ("name", "fixes"),
    [
        ("0.5.13-chunked", CLAIMS),
        ("0.5.14-per-token", CLAIMS),
        ("0.5.15-session-hole", NO_CLAIMS),
        ("0.5.23-random", NO_CLAIMS),
        ("0.5.23-mixed", NO_CLAIMS),
    ],
)
def test_a_release_that_has_the_fixes_equals_it(name: str, fixes: str) -> None:
    result = of_server(bundled_recording(name))
    assert result.verdict is Verdict.SAME
    assert (str(result.old), str(result.new)) == ("observed", fixes)
    lengths = [one for one in result.quantities if one.quantity in LENGTHS]
    assert all(one.num_compared for one in lengths)


def test_the_claims_of_another_era_differ() -> None:
    """Otherwise the test above could not fail."""
    for name, other in (("0.5.13-chunked", NO_CLAIMS), ("0.5.23-random", CLAIMS)):
        result = replay(bundled_recording(name), OBSERVED, spec.parse(other), LENGTHS)
        assert result.verdict is Verdict.DIFFERS


def test_dflash_does_not_claim_in_the_release_in_which_eagle_does() -> None:
    result = of_server(bundled_recording("0.5.14-dflash"), LENGTHS)
    assert (str(result.new), result.verdict) == (NO_CLAIMS, Verdict.SAME)


@pytest.mark.parametrize(
    "name", ["0.5.10-stale-stop", "0.5.11-stale-stop", "0.5.12-experts-overshoot"]
)
def test_a_release_without_a_fix_differs_by_that_fix(name: str) -> None:
    result = of_server(bundled_recording(name))
    assert str(result.new) == CLAIMS and result.verdict is Verdict.DIFFERS
    explained = {fix.number for one in result.quantities for fix in one.by_fix}
    lacks = {"0.5.10": 22651, "0.5.11": 23456, "0.5.12": 26126}
    assert lacks[name.partition("-")[0]] in explained


@pytest.mark.parametrize(
    ("books", "version", "from_013", "from_023"),
    [
        ("0.5.13", "0.5.99", CLAIMS, CLAIMS),  # its functions decide before its number
        ("unknown", "0.5.13", CLAIMS, CLAIMS),
        ("unknown", "0.5.23", NO_CLAIMS, NO_CLAIMS),
        ("unknown", "0.5.24.dev3+g0", CLAIMS, NO_CLAIMS),  # as its own prepares do
        ("unknown", "main", CLAIMS, NO_CLAIMS),
    ],
)
def test_a_server_of_an_unknown_release_may_claim_or_not(
    books: str, version: str, from_013: str, from_023: str
) -> None:
    for name, fixes in (("0.5.13-chunked", from_013), ("0.5.23-random", from_023)):
        recording = bundled_recording(name)
        run_ = dataclasses.replace(recording.run, books=books, sglang_version=version)
        result = of_server(dataclasses.replace(recording, run=run_), LENGTHS)
        assert str(result.new) == fixes


def test_it_is_the_default_of_replay_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    correct, wrong = (
        str(bundled() / f"{name}.h5") for name in ("0.5.23-random", "0.5.12-experts-overshoot")
    )
    assert run(["replay", correct, "--old", "observed"]) == SAME
    assert "observed against fixed-22651" in capsys.readouterr().out
    assert run(["replay", wrong, "--old", "observed"]) == DIFFERS
    assert run(["replay", correct, wrong, "--old", "observed"]) == DIFFERS
    out = capsys.readouterr().out
    assert "observed against fixed-22651" in out and "observed against fixed\n" in out
    assert run(["show", correct, "--request", "r1-50"]) == SAME
    assert capsys.readouterr().out.splitlines()[1].split()[-3:] == [
        "old",
        "fixed-22651",
        "observed",
    ]


def test_a_timeline_and_a_shrunk_recording_name_the_fixes() -> None:
    """A shrunk recording may have none of the prepares by which an unknown server was recognized."""
    recording = bundled_recording("0.5.11-stale-stop")
    (timeline,) = timelines(recording, "stop-1-0", (EXPECTED, OBSERVED))
    assert list(map(str, timeline.paths)) == [CLAIMS, "observed"]
    wanted = Quantity.KV_COMMITTED_LEN_SETTLED
    unknown = dataclasses.replace(recording.run, books="unknown", sglang_version="main")
    shrunk = shrink_to_divergence(
        dataclasses.replace(recording, run=unknown),
        "0" * 64,
        (OBSERVED, EXPECTED),
        wanted,
        lambda _: None,
    )
    assert isinstance(shrunk.shows, ReplayResult) and str(shrunk.shows.new) == CLAIMS


def test_check_names_the_fixes_of_each_recording(capsys: pytest.CaptureFixture[str]) -> None:
    older, newer = (str(bundled() / f"{name}.h5") for name in ("0.5.13-chunked", "0.5.23-random"))
    assert run(["check", newer, "--path", "expected"]) == SAME
    assert "  expected (fixed-22651): 0 of " in capsys.readouterr().out
    assert run(["check", older, newer, "--path", "expected"]) == SAME
    out = capsys.readouterr().out
    assert "expected (fixed), expected (fixed-22651): 0 of 2 recordings break a law" in out
    assert run(["check", older, newer, "--path", "fixed"]) == SAME
    assert "\nfixed: 0 of 2 " in "\n" + capsys.readouterr().out
