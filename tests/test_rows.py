"""Routed rows: how many are collected, which are stored, and that each is the row of its position."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from children import on_demand, specdiff
from lifting import bundled_recording
from recorded import RigRecorder
from specdiff.cli.main import run
from specdiff.fixtures.rig.capture_rows import topk_rows
from specdiff.fixtures.rig.release import find_release
from specdiff.fixtures.rig.scenarios import find_scenario
from specdiff.fixtures.rig.tokens import token
from specdiff.recorders import hdf5
from specdiff.recorders.recording import Recording
from specdiff.recorders.redact import redacted
from specdiff.recorders.schema import NONE64, Kind
from specdiff.recorders.stored_rows import Coverage, StoredRows
from specdiff.replay import spec
from specdiff.replay.contents import Contents
from specdiff.replay.quantity import Quantity
from specdiff.replay.values import values_of
from specdiff.replay.verdict import replay

SEED = 3

# (prompt, outputs, finished_len, start_len) -> rows up to 0.5.11, on 0.5.12, from 0.5.13 on
EXAMPLES = {
    (10, 22, 20, 0): (31, 31, 29),
    (15, 9, 6, 0): (23, 23, 20),
    (15, 9, 6, 12): (23, 11, 8),
}

# Release -> the value of `--experts` in this file. It changes what is recorded, not what the server returns.
EXPERTS = {"0.5.11": "full", "0.5.12": "tail", "0.5.13": "tail", "0.5.23": "full"}


@dataclass
class ExpertsRecorders:
    """One recorder for each value of `--experts`."""

    folder: Path
    recorders: dict[str, RigRecorder] = field(default_factory=dict)

    def __call__(self, release: str, scenario: str) -> Recording:
        return hdf5.load(self.path(release, scenario))

    def path(self, release: str, scenario: str) -> Path:
        which = EXPERTS.get(release, "returned")
        options = ("--experts", which)
        recorder = self.recorders.setdefault(which, RigRecorder(self.folder / which, options))
        return recorder.path(release, scenario, SEED)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> ExpertsRecorders:
    return ExpertsRecorders(tmp_path_factory.mktemp("kept"))


@pytest.mark.live
@pytest.mark.parametrize(
    ("release", "era"),
    [("0.5.12", 1), ("0.5.23", 2), *on_demand(("0.5.10", 0), ("0.5.11", 0), ("0.5.13", 2))],
)
def test_the_known_examples_collect_the_known_numbers_of_rows(
    release: str, era: int, kept: ExpertsRecorders
) -> None:
    recording = kept(release, "experts-overshoot")
    finishes, rids = recording.finishes, recording.rids
    asked = _asked("experts-overshoot")
    lengths = zip(
        *(
            getattr(finishes, name).tolist()
            for name in ("origin_len", "output_len", "finished_len")
        ),
        strict=True,
    )
    found = {}
    for i, (prompt, outputs, length) in enumerate(lengths):
        start = asked[rids[int(finishes.qid[i])]]
        found[prompt, outputs, length, start] = int(finishes.experts_rows[i])
    assert {key: found[key] for key in EXAMPLES} == {
        key: rows[era] for key, rows in EXAMPLES.items()
    }


def _asked(scenario: str) -> dict[str, int]:
    """Return by rid the start_len that the client asked for. Servers before 0.5.12 do not know it."""
    return {
        script.rid: script.routed_experts_start_len
        for script in find_scenario(scenario, SEED, None).requests
    }


@pytest.mark.parametrize("release", ["0.5.10", "0.5.12", *on_demand("0.5.13")])
def test_every_routed_row_is_the_row_of_its_position(release: str, record: RigRecorder) -> None:
    checked = _check_contents(record(release, "random", SEED), "random", "experts", salt=0)
    assert checked > 2000


@pytest.mark.live
def test_rows_that_were_not_returned_are_the_rows_of_their_positions_too(
    kept: ExpertsRecorders,
) -> None:
    """With `--experts full`, also for requests that did not ask, with retracts, aborts, cached prefixes and stops."""
    recording = kept("0.5.23", "random")
    assert recording.stats is not None and recording.stats.exceptions == 0
    checked = _check_contents(recording, "random", "experts", salt=0)
    finishes = recording.finishes
    unasked = finishes.experts_state == 0
    assert unasked.sum() > 50 and (finishes.experts_stored[unasked] > 0).sum() > 50
    sequences = (finishes.origin_len + finishes.output_len - 1).clip(min=0)
    assert checked == sequences.sum() == finishes.experts_stored.sum() > 4000


@pytest.mark.live
@pytest.mark.parametrize("release", ["0.5.12", "0.5.23", *on_demand("0.5.13")])
def test_every_indexer_row_is_the_row_of_its_position(release: str, kept: ExpertsRecorders) -> None:
    recording = kept(release, "indexer-topk")
    checked = _check_contents(recording, "indexer-topk", "indexer", salt=1)
    assert checked > 100
    coverage = StoredRows(recording, "indexer").coverage()
    assert coverage.whole == coverage.finishes > 0  # to the end of the sequence, past the stop


def _check_contents(recording: Recording, scenario: str, what: str, salt: int) -> int:
    """Compare the stored rows of each finish with what the script says of their positions.

    Return how many rows were compared.
    """
    scripts = {script.rid: script for script in find_scenario(scenario, SEED, None).requests}
    finishes, held = recording.finishes, StoredRows(recording, what)
    checked = 0
    for i, (start, end) in enumerate(zip(held.start.tolist(), held.end.tolist(), strict=True)):
        if start == end:
            continue
        rid = recording.rids[int(finishes.qid[i])]
        outputs = [token(rid, position) for position in range(int(finishes.output_len[i]))]
        positions = range(start, end)
        tokens = [(scripts[rid].prompt + outputs)[position] for position in positions]
        rows = held.rows(i, start, end)
        assert np.array_equal(rows, topk_rows(positions, tokens, salt)), f"{rid}: rows {positions}"
        checked += len(positions)
    return checked


@pytest.mark.live
@pytest.mark.parametrize(
    ("release", "coverage"),
    [
        ("0.5.11", Coverage(9, 9, 9, 9, 9)),  # the server returns all rows
        ("0.5.12", Coverage(9, 9, 9, 9, 6)),  # it returns rows from start_len on
        # it returns rows up to the stop, and `--experts tail` adds the rest
        ("0.5.13", Coverage(9, 9, 9, 9, 6)),
        ("0.5.23", Coverage(9, 9, 9, 9, 9)),
    ],
)
def test_info_says_for_how_many_finishes_all_rows_are_held(
    release: str, coverage: Coverage, kept: ExpertsRecorders, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = kept(release, "experts-overshoot")
    assert StoredRows(recording, "experts").coverage() == coverage
    assert run(["info", str(kept.path(release, "experts-overshoot"))]) == 0
    said = capsys.readouterr().out
    assert f"to the end of the sequence for 9 of 9, {coverage.whole} of these from row 0)" in said
    assert f"recorded with --experts {EXPERTS[release]}" in said


@pytest.mark.parametrize(("rows", "more"), [(0, 1), (1, 0)])
def test_a_finish_that_returned_no_row_counts_as_completely_held(rows: int, more: int) -> None:
    """Synthetic: the last finish asked for rows from the end of its sequence on, and nothing is stored for it.

    If it returned a row nevertheless, that row is not held.
    """
    recording = bundled_recording("0.5.12-experts-start-len")
    finishes, last = recording.finishes, len(recording.finishes.qid) - 1
    assert finishes.experts_state[last] == 1
    stored, returned = finishes.experts_stored.copy(), finishes.experts_rows.copy()
    start = finishes.experts_start.copy()
    experts = recording.experts[: len(recording.experts) - stored[last]]
    stored[last], returned[last], start[last] = 0, rows, 40
    changed = dataclasses.replace(
        finishes, experts_stored=stored, experts_rows=returned, experts_start=start
    )
    found = dataclasses.replace(recording, finishes=changed, experts=experts)
    before, after = (StoredRows(one, "experts").coverage() for one in (recording, found))
    assert after.returned == before.returned - 1 + more


@pytest.mark.live
@pytest.mark.parametrize(
    ("release", "path", "server"),
    [
        ("0.5.12", "fixed", "0.5.13"),  # the path's rows end before the returned ones
        ("0.5.13", "old+24851", "0.5.12"),  # they end after the returned ones
        ("0.5.23", "old", "0.5.11"),  # and they begin before the returned ones
        ("0.5.23", "sglang==0.5.12", "0.5.12"),
    ],
)
def test_rows_computed_for_another_era_equal_what_its_server_returned(
    release: str, path: str, server: str, kept: ExpertsRecorders
) -> None:
    recording = kept(release, "experts-overshoot")
    made, returned = (_rows(recording, path), _rows(kept(server, "experts-overshoot"), "observed"))
    assert made.keys() == returned.keys() and len(made) == 9
    for rid, rows in made.items():
        assert np.array_equal(rows, returned[rid]) and len(rows) > 0, rid
    own = _rows(recording, "observed")
    assert all(len(rows) != len(own[rid]) for rid, rows in made.items())


def _rows(recording: Recording, path: str) -> dict[str, NDArray[np.uint8]]:
    """Return by rid the contents of the rows that this path collects. Each of them must be held."""
    held = StoredRows(recording, "experts")
    found = values_of(recording, spec.parse(path), Quantity.ROUTED_EXPERTS)
    finish = {int(event): row for row, event in enumerate(recording.event_of(Kind.FINISH))}
    rows = {}
    for (event, rid, _), value in found.items():
        assert isinstance(value, tuple) and rid is not None
        start, end = value
        assert isinstance(start, int) and isinstance(end, int)
        assert held.holds(finish[event], start, end)
        rows[rid] = held.rows(finish[event], start, end)
    return rows


@pytest.mark.live
@pytest.mark.parametrize(
    ("release", "old", "new", "expected"),
    [
        ("0.5.12", "old+24851", "fixed", Contents(9, 9, 0)),
        ("0.5.12", "old", "fixed", Contents(6, 6, 3)),  # three have a start_len: no rows before it
        ("0.5.13", "old+24851", "fixed", Contents(9, 9, 0)),
        ("0.5.13", "old", "fixed", Contents(6, 6, 3)),
        ("0.5.13", "observed", "fixed", Contents(9, 0, 0)),
        ("0.5.23", "old", "fixed", Contents(9, 9, 0)),
        ("0.5.23", "observed", "sglang==0.5.23", Contents(9, 0, 0)),
    ],
)
def test_rows_that_are_held_are_compared_by_value(
    release: str, old: str, new: str, expected: Contents, kept: ExpertsRecorders
) -> None:
    assert _contents(kept(release, "experts-overshoot"), old, new) == expected


@pytest.mark.live
def test_redacted_rows_are_not_compared(kept: ExpertsRecorders) -> None:
    recording = redacted(kept("0.5.23", "experts-overshoot"), "")
    assert _contents(recording, "old", "fixed") == Contents(0, 0, 9)


def test_rows_that_are_not_held_are_never_compared() -> None:
    """0.5.13 returns rows up to the stop. These alone do not say what an older server would have returned."""
    recording = bundled_recording("0.5.13-experts-overshoot")
    assert recording.finishes.experts_stored.sum() == recording.finishes.experts_rows.sum() > 0
    assert _contents(recording, "old", "fixed") == Contents(0, 0, 9)
    assert _contents(recording, "observed", "fixed") == Contents(9, 0, 0)
    for lost in (_without_first, _without_last):
        assert _contents(lost(recording), "observed", "fixed") == Contents(0, 0, 9)
    assert _contents(bundled_recording("0.5.12-stale-stop"), "old", "fixed") is None  # no capturer


def _contents(recording: Recording, old: str, new: str) -> Contents | None:
    paths = spec.parse(old), spec.parse(new)
    (found,) = replay(recording, *paths, [Quantity.ROUTED_EXPERTS]).quantities
    return found.contents


def _without_first(recording: Recording) -> Recording:
    """Return the recording without the first row of each finish."""
    start = StoredRows(recording, "experts").start
    return _less_a_row(recording, start + 1, last=False)


def _without_last(recording: Recording) -> Recording:
    return _less_a_row(recording, StoredRows(recording, "experts").start, last=True)


def _less_a_row(recording: Recording, start: NDArray[np.int64], *, last: bool) -> Recording:
    finishes = recording.finishes
    stored = finishes.experts_stored
    ends = np.cumsum(stored)
    gone = ends - 1 if last else ends - stored
    return dataclasses.replace(
        recording,
        finishes=dataclasses.replace(
            finishes, experts_stored=stored - 1, experts_stored_from=start
        ),
        experts=np.delete(recording.experts, gone, axis=0),
    )


# The server itself asks for rows from 0 or 12 on. For the rows past the stop, the recorder asks from 20 on, or from 29 on if
# the request ended by length. The capturer raises for the former and returns a row too few for the latter.
REFUSES = """
import sys
from specdiff.fixtures.rig.__main__ import main
from specdiff.fixtures.rig.postimport import install_patches
def patch(module):
    original = module.BaseTopkCapturer.get_topk
    def refuses(self, *args, start_len=0, **kwargs):
        if start_len == 20:
            raise RuntimeError("not these")
        rows = original(self, *args, start_len=start_len, **kwargs)
        return rows[1:] if start_len == 29 else rows
    module.BaseTopkCapturer.get_topk = refuses
install_patches({"sglang.srt.state_capturer.base": patch})
main(["--sglang", "0.5.13", "--scenario", "experts-overshoot", "--seed", "3"], standalone_mode=False)
"""


@pytest.mark.live
def test_a_capturer_that_raises_costs_no_finish(tmp_path: Path) -> None:
    """The server does not notice, the finish is recorded whole, and the recorder counts its exceptions.

    If the capturer returns another number of rows than asked for, the recorder does not use them.
    """
    find_release("0.5.13")
    command = [sys.executable, "-c", REFUSES]
    done = specdiff("record", "--experts", "tail", "-o", tmp_path, "--", *command)
    assert done.returncode == 0, done.stderr
    recording = hdf5.load(Path(done.stdout.strip()))
    stats = recording.stats
    assert stats is not None
    assert (stats.exceptions, stats.first_exception) == (6, "RuntimeError: not these")
    assert stats.dropped == 0 and not len(recording.event_of(Kind.GAP))
    assert StoredRows(recording, "experts").coverage() == Coverage(9, 9, 9, 0, 0)
    assert _check_contents(recording, "experts-overshoot", "experts", salt=0) > 0


# The server asks for rows from 12 on. This capturer works in pages of 8 and returns rows from 8 on.
ALIGNS = """
from specdiff.fixtures.rig.__main__ import main
from specdiff.fixtures.rig.postimport import install_patches
def patch(module):
    original = module.BaseTopkCapturer.get_topk
    def aligns(self, *args, start_len=0, **kwargs):
        return original(self, *args, start_len=start_len // 8 * 8, **kwargs)
    module.BaseTopkCapturer.get_topk = aligns
install_patches({"sglang.srt.state_capturer.base": patch})
main(["--sglang", "0.5.13", "--scenario", "experts-overshoot", "--seed", "3"], standalone_mode=False)
"""


@pytest.mark.live
def test_rows_that_begin_before_the_requested_start_have_no_known_start(tmp_path: Path) -> None:
    find_release("0.5.13")
    done = specdiff("record", "-o", tmp_path, "--", sys.executable, "-c", ALIGNS)
    # the rig notices, too
    assert "captured rows (salt 0) are not those of its tokens" in done.stderr
    path = Path(done.stdout.strip())
    starts = set(hdf5.load(path).finishes.experts_start.tolist())
    assert starts == {0, NONE64}
    routed = ["--quantity", "routed_experts"]
    same = specdiff("replay", path, "--old", "observed", "--fixed", "sglang==0.5.13", *routed)
    assert same.returncode == 0, same.stdout


# The prompts of 8 tokens are computed on the prefill side. Rows are asked for from position 8 on.
DECODE_SIDE = """
pool_tokens = 8192
conservativeness = 1.0
capture_experts = true

[settings]
disaggregation_mode = "decode"
disaggregation_transfer_backend = "fake"
disaggregation_decode_retraction_backup = "cpu_tensor"

[[request]]
rid = "asks"
arrival = 0
prompt_len = 8
stop_at = 5
accept = [4]
return_routed_experts = true
routed_experts_start_len = 8

[[request]]
rid = "asks nothing"
arrival = 1
prompt_len = 8
stop_at = 5
accept = [4]
"""


@pytest.mark.live
def test_a_decode_side_holds_no_rows_of_prompts(tmp_path: Path) -> None:
    (tmp_path / "decode.toml").write_text(DECODE_SIDE)
    recorder = RigRecorder(tmp_path, ("--experts", "full"))
    recording = recorder("0.5.23", str(tmp_path / "decode.toml"), SEED)
    finishes, held = recording.finishes, StoredRows(recording, "experts")
    assert recording.run.decode_side and finishes.output_len.tolist() == [9, 9]
    assert finishes.experts_state.tolist() == [1, 0]
    assert list(zip(held.start.tolist(), held.end.tolist(), strict=True)) == [(8, 16), (0, 0)]
