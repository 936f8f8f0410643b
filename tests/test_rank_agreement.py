"""Ranks of one attention group, recorded live: they agree, and the first place where one strays is named."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from children import specdiff
from gaps import without
from recorded import RigRecorder
from specdiff.cli.main import DIFFERS, SAME
from specdiff.recorders import hdf5
from specdiff.recorders.derived import Derived
from specdiff.recorders.recording import TABLE_NAMES, Recording, columns
from specdiff.recorders.schema import NONE64, ControlAct, Kind
from specdiff.replay.agreement import Agreement, agree

OWN = {"batch", "other", "launch", "session", "num_rows", "num_tokens", "ref", "time_ns"}
OWN |= {"device_sum", "experts_stored", "indexer_stored"}
OWN |= {"experts_stored_from", "indexer_stored_from"}
NOT_SHARED = {"requests", "sents", "gaps", "seeds", "seed_rows"}
SCHEMA = Path(__file__).parent.parent / "docs" / "replay.schema.json"


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> RigRecorder:
    """Record all ranks. conftest marks every test that uses a fixture of this name as live."""
    return RigRecorder(tmp_path_factory.mktemp("ranks"), options=("--all-ranks",))


@pytest.fixture(scope="module")
def pair(record: RigRecorder) -> tuple[Recording, Recording]:
    left, right = record.ranks("0.5.23", "tp-random", 1, "--requests", "30", "--paused")
    return left, right


@pytest.fixture(scope="module")
def strays(record: RigRecorder) -> Path:
    return record.paths("0.5.23", "tp-stray", 1, "--requests", "20")[0].parent


def shared(recording: Recording) -> int:
    to_clients = np.isin(recording.events.kind, (Kind.SENT, Kind.WEIGHT_SPAN))
    return int((~to_clients).sum())


def test_two_ranks_of_a_group_keep_the_same_books(pair: tuple[Recording, Recording]) -> None:
    left, right = pair
    assert [(one.run.tp_rank, one.run.tp_size, one.run.dp_size) for one in pair] == [
        (0, 2, 1),
        (1, 2, 1),
    ]
    assert left.run.run_id == right.run.run_id and left.run.pid != right.run.pid
    assert len(left.sents.qid) and not len(right.sents.qid)  # only the first rank answers clients
    found = agree(left, right)
    assert found.first is None and found.why == ()
    assert found.num_events == shared(left) == shared(right) > 400
    assert found.num_values > 8000


def test_a_change_in_any_shared_column_is_found(pair: tuple[Recording, Recording]) -> None:
    """Change one value in the middle of each column that both ranks read from the server, except the kinds of events."""
    left, right = pair
    seen = 0
    for name in TABLE_NAMES:
        table = getattr(right, name)
        for column, values in columns(table):
            if name in NOT_SHARED or column in OWN or not len(values):
                continue
            changed = values.copy()
            at = len(values) // 2
            if column == "kind":
                continue  # the event would no longer fit its table
            changed[at] += 1 if column != "qid" else (-1 if changed[at] else 1)
            if name == "events":
                changed[at:] += 1
                changed[at] = values[at] + 1
            bent = dataclasses.replace(
                right, **{name: dataclasses.replace(table, **{column: changed})}
            )
            found = agree(left, bent)
            assert found.first is not None, (name, column)
            if name != "events":
                assert found.num_differed == 1, (name, column)
                assert found.first.what == ("request" if column == "qid" else column)
            seen += 1
    assert seen > 80


def test_only_emitted_tokens_are_compared(
    pair: tuple[Recording, Recording],
) -> None:
    left, right = pair
    counts = [
        agree(left, dataclasses.replace(right, tokens=np.where(at, right.tokens + 1, right.tokens)))
        for at in np.eye(len(right.tokens), dtype=bool)[:120]
    ]
    emitted = sum(found.num_differed for found in counts)
    assert {found.num_differed for found in counts} == {0, 1}  # some are padding
    every = agree(left, dataclasses.replace(right, tokens=right.tokens + 1))
    kept = right.result_rows.num_emitted
    assert every.num_differed == kept[kept > 0].sum() > emitted > 60
    assert every.first is not None and every.first.what == "token" and every.first.rid


def test_weights_are_compared_by_name_not_by_number(pair: tuple[Recording, Recording]) -> None:
    """In a recording that began late, the numbers can differ: only the first rank numbers older weights for clients."""
    left, right = pair
    names = right.run.weight_versions
    shuffled = np.random.default_rng(1).permutation(len(names))
    assert len(names) > 5 and (shuffled != np.arange(len(names))).sum() > 3
    told, changed = right.controls, right.controls.act == ControlAct.WEIGHTS
    numbers = {
        column: np.where(changed, np.argsort(shuffled)[values * changed], values)
        for column, values in columns(told)
        if column != "act"
    }
    run = dataclasses.replace(right.run, weight_versions=tuple(names[i] for i in shuffled))
    other = dataclasses.replace(right, run=run, controls=dataclasses.replace(told, **numbers))
    assert agree(left, other) == agree(left, right)

    renamed = dataclasses.replace(run, weight_versions=("elsewhere", *run.weight_versions[1:]))
    found = agree(left, dataclasses.replace(other, run=renamed))
    # it differs as weights that serve, or also as those that no longer serve
    assert found.first is not None and found.num_differed in (1, 2)
    assert (found.first.left, found.first.right) == (run.weight_versions[0], "elsewhere")


def test_values_that_neither_rank_has_do_not_count_as_compared(
    pair: tuple[Recording, Recording],
) -> None:
    left, right = pair
    whole = agree(left, right)
    step = Derived("no-tokens", "0" * 64, "as the recorder does", 0, tokens_replaced=True)
    veiled = agree(left, dataclasses.replace(right, derived=(step,), tokens=right.tokens + 1))
    assert veiled.num_differed == 0 and veiled.num_values < whole.num_values

    def without_sums(recording: Recording) -> Recording:
        table = recording.launches
        absent = np.full_like(table.seq_lens_sum, NONE64)
        return dataclasses.replace(
            recording, launches=dataclasses.replace(table, seq_lens_sum=absent)
        )

    less = agree(without_sums(left), without_sums(right))
    num_launches = int((left.events.kind == Kind.LAUNCH).sum())
    assert 0 < whole.num_values - less.num_values <= num_launches and less.num_differed == 0


def test_lost_events_are_no_difference_and_are_counted(pair: tuple[Recording, Recording]) -> None:
    """Covers gaps in the middle of either rank, a late start and an early end."""
    left, right = pair
    size = len(right.events.kind)
    for begin, end, why in (
        (size // 2, size // 2 + 9, "dropped"),
        (0, size // 3, "running server"),
        (size - 60, size, "dropped"),
    ):
        for found in (
            agree(left, without(right, begin, end)),
            agree(without(right, begin, end), left),
        ):
            assert found.first is None, (begin, found)
            assert 100 < found.num_events < size - (end - begin)
            assert any(why in sentence for sentence in found.why), found.why
            assert max(found.num_left, found.num_right) + found.num_events == shared(left)


def test_a_request_that_only_one_late_recording_knows_is_no_difference(
    pair: tuple[Recording, Recording],
) -> None:
    """It waited in the queue when the later recording began, and was aborted there.

    No request of this pair was; so an abort is made that of a request which ended before.
    """
    start = int(pair[0].event_of(Kind.ABORT)[-1]) - 10
    ended = {*pair[0].finishes.qid[pair[0].event_of(Kind.FINISH) < start].tolist()}
    waited = max(ended - {*pair[0].releases.qid[pair[0].event_of(Kind.RELEASE) >= start].tolist()})

    def late(recording: Recording) -> Recording:
        cut = without(recording, 0, start)
        aborts = np.append(cut.aborts.qid[:-1], waited).astype(cut.aborts.qid.dtype)
        return dataclasses.replace(cut, aborts=dataclasses.replace(cut.aborts, qid=aborts))

    left, right = map(late, pair)
    whole = agree(left, right)
    rids = tuple("unseen" if qid == waited else rid for qid, rid in enumerate(right.rids))
    found = agree(left, dataclasses.replace(right, rids=rids))
    assert whole.first is None and found.first is None
    assert found.num_events == whole.num_events - 1 and found.num_left == 1 + whole.num_left


def test_a_journal_that_ends_early_is_no_difference(pair: tuple[Recording, Recording]) -> None:
    left, right = pair
    cut = without(right, len(right.events.kind) - 60, len(right.events.kind))
    spine = [values[:-1] for _, values in columns(cut.events)]  # without the gap at the end
    ended = dataclasses.replace(
        cut,
        events=type(cut.events)(*spine),
        gaps=type(cut.gaps)(np.zeros(0, dtype=np.int64)),
        damage="killed",
    )
    found = agree(left, ended)
    assert found.first is None and found.why == ("one recording continues after the other ends",)
    assert found.num_events == shared(ended) == shared(left) - found.num_left > 400
    assert found.num_right == 0


def test_a_rank_that_strays_is_reported_with_request_and_values(strays: Path) -> None:
    paths = sorted(strays.glob("*.h5"), key=lambda path: path.name.partition("-tp")[2])
    left, right = map(hdf5.load, paths)
    found = agree(left, right)
    first = found.first_of_request
    assert first is not None and (first.rid, first.what) == ("r1-10", "accept_len")
    assert (first.left, first.right) == (4, 1)
    assert found.num_left > 50 and "after the first event that differs" in found.why[-1]

    checked = specdiff("check", strays)
    assert checked.returncode == DIFFERS
    assert "request r1-10: accept_len 4 and 1" in checked.stdout
    one = specdiff("check", paths[0])
    assert one.returncode == SAME and "ranks of run" not in one.stdout

    told = specdiff("replay", strays, "--old", "observed", "--fixed", "sglang==0.5.23")
    assert told.returncode == SAME  # each rank alone equals what its release computes
    assert "request r1-10: accept_len 4 and 1" in told.stdout
    told = specdiff("replay", strays, "--format", "json")
    results: list[dict[str, Any]] = json.loads(told.stdout)
    jsonschema.validate(results, json.loads(SCHEMA.read_text()))
    by_rank = {one["recording"]["rank"]["tp"]: one["recording"]["agreement"] for one in results}
    assert by_rank[0] is None
    compared = by_rank[1]
    assert compared["compared_with"] == str(paths[0])
    assert compared["differed"] == found.num_differed
    in_request = compared["first_of_request"]
    assert (in_request["first_rank"], in_request["this_rank"]) == (4, 1)
    assert compared["not_compared"]["first_rank"] == found.num_left


def test_requests_with_the_same_id_are_told_apart(pair: tuple[Recording, Recording]) -> None:
    """An id may be used again. The ranks must agree on which of its requests an event belongs to."""
    rids = ("same",) * len(pair[0].rids)
    twins: list[Recording] = [dataclasses.replace(one, rids=rids) for one in pair]
    found: Agreement = agree(*twins)
    assert found.first is None and found.num_values > 8000
    reqs = twins[1].finishes.qid.copy()
    reqs[:2] = reqs[1::-1]
    bent = dataclasses.replace(twins[1], finishes=dataclasses.replace(twins[1].finishes, qid=reqs))
    assert agree(twins[0], bent).num_differed == 2


def test_two_recordings_of_the_same_rank_are_reported_as_of_two_servers(
    strays: Path, tmp_path: Path
) -> None:
    first = min(strays.glob("*-tp0.h5"))
    shutil.copy(first, tmp_path)
    recording = hdf5.load(first)
    other = dataclasses.replace(recording, run=dataclasses.replace(recording.run, pid=1))
    hdf5.save(other, tmp_path / "other.h5")
    checked = specdiff("check", tmp_path)
    assert "several processes claim the same rank" in checked.stdout
    assert "they belong to different servers" in specdiff("info", tmp_path).stdout
