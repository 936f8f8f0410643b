"""What `make fidelity` counts as a pass: everything compared on every release, all equal."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from fidelity_plays import MOST_RUNS, FidelityPlay, expected, plays, recorded
from fidelity_tally import Tally, print_branches, print_features, print_values, print_verdict
from lifting import bundled_recording, compiled, release
from specdiff.replay.quantity import Quantity


def whole(version: str) -> Tally:
    """Return a tally in which everything expected was compared."""
    return Tally(version, compared=Counter(dict.fromkeys(expected(version), 5)))


def test_the_verdict_is_good_if_everything_was_compared_and_equal() -> None:
    assert print_verdict({version: whole(version) for version in ("0.5.9", "0.5.23")})
    assert not print_verdict({})


@pytest.mark.parametrize("quantity", Quantity)
def test_the_verdict_is_bad_if_one_value_differs(quantity: Quantity) -> None:
    tally = whole("0.5.23")
    tally.differed[quantity] = 1
    assert not print_verdict({"0.5.9": whole("0.5.9"), "0.5.23": tally})


@pytest.mark.parametrize("quantity", Quantity)
def test_the_verdict_is_bad_if_a_quantity_was_never_compared(
    quantity: Quantity, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = whole("0.5.23")
    del tally.compared[quantity]
    assert not print_verdict({"0.5.9": whole("0.5.9"), "0.5.23": tally})
    assert f"never compared on 0.5.23: {quantity.value}\n" in capsys.readouterr().out


def test_a_release_is_not_expected_to_have_later_quantities() -> None:
    absent = {version: set(Quantity) - set(expected(version)) for version in ("0.5.9", "0.5.11")}
    assert absent["0.5.9"] == {Quantity.INDEXER_TOPK, Quantity.SESSION_COMMITTED}
    assert absent["0.5.11"] == {Quantity.INDEXER_TOPK}
    assert expected("0.5.12") == list(Quantity)


def test_a_tally_tells_releases_apart(capsys: pytest.CaptureFixture[str]) -> None:
    """The books of its own release equal a recording. Those of another release differ."""
    recording = bundled_recording("0.5.10-random")
    own, other = Tally("0.5.10"), Tally("0.5.23")
    for tally in (own, other):
        with release(tally.release) as source:
            tally.add(recording, compiled(source))
    assert own.differed.total() == 0 < own.compared.total()
    assert other.differed[Quantity.KV_COMMITTED_LEN] > 0
    assert (own.equals, other.equals) == ("old", "fixed-22651")
    print_values({tally.release: tally for tally in (own, other)})
    print_branches({"0.5.10": own})
    print_features({tally.release: tally for tally in (own, other)})
    said = capsys.readouterr().out
    assert f"{own.compared[Quantity.FINISH]}/0" in said
    compared, wrong = own.compared.total(), other.differed.total()
    assert f"EAGLE      {compared}" in said and f"  {wrong}" in said
    assert ["chunked-prefill", "0", "0", "any"] in [line.split() for line in said.splitlines()]


def test_every_seed_is_played_once() -> None:
    played = [
        p for p in plays(["0.5.9"], 3, MOST_RUNS + 7) if p.scenario == "random" and not p.flags
    ]
    assert [(p.seed, p.runs) for p in played] == [(3, MOST_RUNS), (3 + MOST_RUNS, 7)]


def test_a_failed_run_is_reported_and_not_reused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no scenario 'nope'"):
        recorded(FidelityPlay("0.5.10", "nope", 1, 1), tmp_path)
    assert not list(tmp_path.rglob("*.h5"))
