"""Routed rows: the numbers of the known examples, and that every stored row is the row of the position it claims."""

from __future__ import annotations

import numpy as np
import pytest

from recorded import Recorder
from specdiff.fixtures.rig.capture_rows import topk_rows
from specdiff.fixtures.rig.scenarios import find_scenario
from specdiff.fixtures.rig.script import token
from specdiff.recorders.recording import Recording, row_starts

SEED = 3

# (prompt, outputs, finished_len, start_len) -> rows up to 0.5.11, on 0.5.12, from 0.5.13 on
EXAMPLES = {
    (10, 22, 20, 0): (31, 31, 29),
    (15, 9, 6, 0): (23, 23, 20),
    (15, 9, 6, 12): (23, 11, 8),
}


@pytest.mark.parametrize(
    ("release", "era"), [("0.5.10", 0), ("0.5.11", 0), ("0.5.12", 1), ("0.5.13", 2), ("0.5.23", 2)]
)
def test_the_known_examples(release: str, era: int, record: Recorder) -> None:
    finishes = record(release, "experts-overshoot", SEED).finishes
    asked = _asked("experts-overshoot")
    rids = record(release, "experts-overshoot", SEED).rids
    lengths = zip(
        *(
            getattr(finishes, name).tolist()
            for name in ("origin_len", "output_len", "finished_len")
        ),
        strict=True,
    )
    found = {}
    for i, (prompt, outputs, kept) in enumerate(lengths):
        start = asked[rids[int(finishes.qid[i])]]
        found[prompt, outputs, kept, start] = int(finishes.experts_rows[i])
    assert {key: found[key] for key in EXAMPLES} == {
        key: rows[era] for key, rows in EXAMPLES.items()
    }


def _asked(scenario: str) -> dict[str, int]:
    """By rid: the start_len that the client asked for (before 0.5.12 the server does not know it)."""
    return {
        script.rid: script.routed_experts_start_len
        for script in find_scenario(scenario, SEED, None).requests
    }


@pytest.mark.parametrize("release", ["0.5.10", "0.5.12", "0.5.13", "0.5.23"])
def test_every_routed_row_is_the_row_of_its_position(release: str, record: Recorder) -> None:
    checked = _check_contents(record(release, "random", SEED), "random", "experts", salt=0)
    assert checked > 2000


@pytest.mark.parametrize("release", ["0.5.12", "0.5.13", "0.5.23"])
def test_every_indexer_row_is_the_row_of_its_position(release: str, record: Recorder) -> None:
    checked = _check_contents(
        record(release, "indexer-topk", SEED), "indexer-topk", "indexer", salt=1
    )
    assert checked > 100


def _check_contents(recording: Recording, scenario: str, what: str, salt: int) -> int:
    """Rows [start, start + stored) of each finish, held against what the script says of those positions."""
    scripts = {script.rid: script for script in find_scenario(scenario, SEED, None).requests}
    finishes, stored_rows = recording.finishes, getattr(recording, what)
    start, stored = getattr(finishes, f"{what}_start"), getattr(finishes, f"{what}_stored")
    checked = 0
    for i, first in enumerate(row_starts(stored).tolist()):
        if not stored[i]:
            continue
        rid = recording.rids[int(finishes.qid[i])]
        outputs = [token(rid, position) for position in range(int(finishes.output_len[i]))]
        positions = range(int(start[i]), int(start[i] + stored[i]))
        tokens = [(scripts[rid].prompt + outputs)[position] for position in positions]
        rows = stored_rows[first : first + len(positions)]
        assert np.array_equal(rows, topk_rows(positions, tokens, salt)), f"{rid}: rows {positions}"
        checked += len(positions)
    return checked
