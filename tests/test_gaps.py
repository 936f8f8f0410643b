"""Lost events: what can no longer be known is not captured, and what is still compared is still right."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from gaps import without
from lifting import books, release
from specdiff.cli.inputs import bundled
from specdiff.recorders import hdf5
from specdiff.replay.columns.engine import ledger
from specdiff.replay.columns.shared import Columns
from specdiff.replay.diff import diff
from specdiff.replay.ledger import Ledger
from specdiff.replay.lift.ledger import ledger_of
from specdiff.replay.observed import observed
from specdiff.replay.paths.fixes import ALL, rules_of
from specdiff.replay.quantity import Quantity

EQUAL = {"0.5.10-random": frozenset[int](), "0.5.23-random": ALL - {22651}}


ABSENT = {Quantity.INDEXER_TOPK, Quantity.SESSION_COMMITTED}  # in these two servers


def ruled(name: str) -> Callable[[Columns], Ledger]:
    return lambda columns: ledger(columns, rules_of(EQUAL[name]), "rules")


def lifted(name: str) -> Callable[[Columns], Ledger]:
    with release(name.partition("-")[0]) as source:
        made = books(source)
    return lambda columns: ledger_of(columns, made, "lifted")


@pytest.mark.parametrize("engine", [ruled, lifted])
@pytest.mark.parametrize("name", EQUAL)
def test_no_gap_makes_a_true_path_look_wrong(
    name: str, engine: Callable[[str], Callable[[Columns], Ledger]]
) -> None:
    path, chance, books_of = Path(bundled()) / f"{name}.h5", random.Random(5), engine(name)
    recording = hdf5.load(path)
    size, not_captured = len(recording.events.kind), 0
    for _ in range(40 if engine is ruled else 15):
        start = chance.randrange(size - 1)
        cut = without(recording, start, min(size, start + chance.choice((1, 2, 5, 20, 100))))
        columns = Columns(cut)
        computed = books_of(columns)
        for difference in diff(cut, observed(columns), computed):
            assert not difference.differs.any(), f"{difference.quantity}, cut at {start}"
            if difference.quantity not in computed.reasons.keys() | ABSENT:
                not_captured += int(difference.not_captured.sum())
                assert difference.num_compared > 0
    assert not_captured > 500
