"""What clients are sent: recordings hold it as they got it, and each release breaks only the laws it is known to break."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from children import EVERYTHING, on_demand, rig, specdiff
from gaps import without
from recorded import RigRecorder
from recorded import record as record_command
from specdiff.fixtures.rig.release import find_release
from specdiff.recorders import hdf5
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import NONE64, Kind, Reason
from specdiff.replay import spec
from specdiff.replay.columns.shared import Columns
from specdiff.replay.laws.check import check
from specdiff.replay.laws.law import LawOutcome, State
from specdiff.replay.observed import observed
from specdiff.replay.timeline import timelines

LAWS = ("trainer", "tokens", "returned", "logprobs", "hidden-states")
BROKEN = {
    "0.5.10": {"trainer", "returned", "logprobs", "hidden-states"},
    "0.5.11": {"trainer", "returned", "logprobs", "hidden-states"},
    "0.5.12": {"trainer", "returned", "logprobs", "hidden-states"},
    "0.5.13": {"logprobs", "hidden-states"},
    "0.5.16": {"logprobs"},
    "0.5.23": set(),
}
"""Release -> laws that it breaks if outputs are streamed and requests are retracted."""
SOME = ["0.5.10", "0.5.13", "0.5.23", *on_demand("0.5.11", "0.5.12", "0.5.16")]

COUNTED = {
    "num_output_ids": "output_ids",
    "num_logprobs": "logprobs",
    "num_hidden_states": "hidden_states",
    "experts_rows": "routed_experts",
    "indexer_rows": "indexer_topk",
}
TOLD = {"prompt_tokens", "completion_tokens"}
REASONS = {Reason.LENGTH: "length", Reason.STOP_TOKEN: "stop", Reason.ABORT: "abort"}


WITHOUT_INDEXER = ("0.5.10", "0.5.11")

pytestmark = pytest.mark.live
Answers = dict[str, dict[str, Any]]
PlayScenario = Callable[[str], tuple[Recording, Answers]]


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> PlayScenario:
    """Return the recording of a release and its answers by rid, as the rig received them over the socket."""

    @cache
    def played(version: str) -> tuple[Recording, Answers]:
        folder = tmp_path_factory.mktemp("sent")
        path = folder / "answers.jsonl"
        command = rig(version, "streamed", "--seed", "1", "--events", str(path))
        if version not in WITHOUT_INDEXER:
            command.append("--indexer")
        recording, _ = record_command(folder / "recording", command)
        answers = map(json.loads, path.read_text().splitlines())
        return recording, {answer["rid"]: answer for answer in answers}

    return played


@pytest.mark.parametrize("version", SOME)
def test_a_recording_holds_what_the_clients_got(version: str, play: PlayScenario) -> None:
    recording, answers = play(version)
    sents = recording.sents
    rids = [recording.rids[qid] for qid in sents.qid]
    assert len(set(rids)) == len(rids)
    got = [answers[rid] for rid in rids]
    unsent = [answers[rid] for rid in answers.keys() - set(rids)]
    # they were aborted in the queue, so no output was sent
    assert all(_told(answer) == "abort" for answer in unsent)
    for column, name in COUNTED.items():
        values = getattr(sents, column)
        assert [max(int(v), 0) for v in values] == [len(a[name] or ()) for a in got], column
        some_asked, all_asked = (values != NONE64).any(), (values != NONE64).all()
        assert some_asked == (column != "indexer_rows" or version not in WITHOUT_INDEXER)
        always = {"num_output_ids"} | ({"indexer_rows"} if some_asked else set())
        assert all_asked == (column in always)
    for column in TOLD:
        assert getattr(sents, column).tolist() == [answer[column] for answer in got]
    told = [REASONS[Reason(int(reason))] for reason in sents.reason]
    assert told == [_told(answer) for answer in got]
    assert (sents.num_in_order == sents.num_output_ids).all() and sents.num_messages.max() > 10


def _told(answer: dict[str, Any]) -> str:
    return str(answer["finished_reason"]["type"])


@pytest.mark.parametrize("version", SOME)
def test_each_release_breaks_the_laws_that_its_known_bugs_break(
    version: str, play: PlayScenario
) -> None:
    recording, _ = play(version)
    found = _outcomes(recording)
    assert {name for name, one in found.items() if one.state is State.BROKEN} == BROKEN[version]
    # the law compares three numbers of every request whose end was sent
    assert found["tokens"].num_checked == 3 * len(recording.sents.qid) > 200
    assert all(found[name].num_checked > 40 for name in LAWS)


@pytest.mark.parametrize(
    ("version", "broken"),
    [("0.5.12", {"returned", "hidden-states"}), *on_demand(("0.5.23", set[str]()))],
)
def test_requests_for_no_output_tokens_break_only_the_known_laws(
    version: str, broken: set[str], record: RigRecorder
) -> None:
    """They get one log probability on purpose. Up to 0.5.13 they also get a hidden state, which #28496 removed."""
    recording = record(version, "prompt-only", 1)
    assert (recording.sents.num_output_ids == 0).sum() == 12
    assert recording.sents.num_logprobs.max() > 1 and 1 in recording.sents.num_logprobs.tolist()
    found = _outcomes(recording)
    assert {name for name, one in found.items() if one.state is State.BROKEN} == broken


FALSIFIED: dict[str, tuple[Callable[[int], int], set[str]]] = {
    "num_output_ids": (lambda v: v + 1, {"tokens", "trainer"}),
    "num_in_order": (lambda v: 0, {"tokens"}),
    "completion_tokens": (lambda v: v - 1, {"tokens"}),
    "num_logprobs": (lambda v: v + 1, {"returned", "logprobs"}),
    "num_hidden_states": (lambda v: v - 1, {"hidden-states"}),
    "experts_rows": (lambda v: v + 1, {"returned", "trainer"}),
    "prompt_tokens": (lambda v: v - 1, {"trainer"}),
}


@pytest.mark.parametrize("column", FALSIFIED)
def test_one_wrong_value_breaks_the_laws_about_it_once(column: str, play: PlayScenario) -> None:
    change, breaks = FALSIFIED[column]
    recording, _ = play("0.5.23")
    values = getattr(recording.sents, column).copy()
    rows = recording.sents.experts_rows
    # a request that was sent rows and the list in question
    (row, *_) = np.flatnonzero((rows > 0) & (values != NONE64) & (recording.sents.num_messages > 1))
    values[row] = change(values[row])
    sents = dataclasses.replace(recording.sents, **{column: values})
    found = _outcomes(dataclasses.replace(recording, sents=sents))
    assert {name for name, one in found.items() if one.num_broken} == breaks
    assert {found[name].num_broken for name in breaks} == {1}
    for name in breaks:
        first = found[name].first
        assert first is not None and first.kind is Kind.SENT
        assert first.rid == recording.rids[recording.sents.qid[row]]


STREAMER = "sglang/srt/managers/scheduler_components/output_streamer.py"
FORGETS = ("req.send_token_offset = len(output_ids_)", "pass")


PROCESSOR = "sglang/srt/managers/scheduler_components/batch_result_processor.py"
MOVES = (
    "start_len = req.routed_experts_start_len",
    "start_len = req.routed_experts_start_len = req.routed_experts_start_len // 8 * 8",
)


def _of_changed(tmp_path: Path, file: str, change: tuple[str, str], *scenario: str) -> Recording:
    """Record sglang 0.5.23 with one line changed. The rig must notice, too, from the answers."""
    real = find_release("0.5.23").root
    tree = tmp_path / "sglang" / "0.5.23"
    shutil.copytree(real, tree, copy_function=os.symlink)
    changed = (real / file).read_text().replace(*change)
    (tree / file).unlink()
    (tree / file).write_text(changed)
    command, env = rig("0.5.23", *scenario), {"SPECDIFF_CACHE": str(tmp_path)}
    done = specdiff("record", "-o", tmp_path / "out", "--", *command, env=env)
    assert "answers are wrong" in done.stderr
    return hdf5.load(next((tmp_path / "out").glob("*.h5")))


@pytest.mark.skipif(not EVERYTHING, reason="slow: set SPECDIFF_TEST_ALL_RELEASES")
def test_a_server_that_sends_tokens_again_breaks_the_law_of_tokens(tmp_path: Path) -> None:
    """In this changed server, every message begins with the first token again."""
    streamed = ("streamed", "--seed", "1", "--requests", "40")
    recording = _of_changed(tmp_path, STREAMER, FORGETS, *streamed)
    again = recording.sents.num_in_order < recording.sents.num_output_ids
    assert again.sum() > 20
    assert _outcomes(recording)["tokens"].num_broken == 2 * again.sum()


def test_a_server_that_moves_the_start_of_rows_breaks_the_trainer_law(tmp_path: Path) -> None:
    """The law uses the start that the client asked for. The finish reports the moved start."""
    recording = _of_changed(tmp_path, PROCESSOR, MOVES, "experts-start-len", "--seed", "1")
    finishes = recording.finishes
    moved = finishes.start_len != recording.requests.start_len[finishes.qid]
    assert moved.sum() >= 4
    assert _outcomes(recording)["trainer"].num_broken == moved.sum()


IGNORED = """
[[request]]
rid = "later"
prompt_len = 12
max_new_tokens = 9
accept = [4]
return_routed_experts = true
routed_experts_start_len = 6
"""


@pytest.mark.parametrize(
    ("version", "rows", "broken"),
    [("0.5.10", 20, True), ("0.5.12", 14, False), *on_demand(("0.5.11", 20, True))],
)
def test_a_server_that_ignores_the_start_of_rows_breaks_the_laws_about_it(
    version: str, rows: int, broken: bool, record: RigRecorder, tmp_path: Path
) -> None:
    """Up to 0.5.11 the scheduler does not know the start (#24851). The rig does, and records what was asked."""
    path = tmp_path / "ignored.toml"
    path.write_text(IGNORED)
    recording = record(version, str(path), 0)
    assert recording.requests.start_len.tolist() == [6]
    assert recording.sents.experts_rows.tolist() == [rows]
    columns = Columns(recording)
    found = {one.law.name: one for one in check(columns, observed(columns))}
    for name in ("trainer", "rows", "returned"):
        assert (found[name].num_checked > 0, found[name].num_broken) == (True, int(broken)), name
        assert found[name].left_out is None
    if broken:
        first = found["trainer"].first
        assert first is not None and (first.found, first.expected) == (27, "21")


def test_requests_that_arrived_before_a_gap_are_not_judged(play: PlayScenario) -> None:
    """Their messages may have been lost in the gap, so sums over messages may be too small."""
    recording, _ = play("0.5.23")
    lost = int(recording.event_of(Kind.SENT)[40])
    found = _outcomes(without(recording, lost, lost + 1))
    left = found["tokens"].num_checked // 3
    assert 40 < left < len(recording.sents.qid) - 1


def test_a_timeline_says_what_was_sent_to_the_client(play: PlayScenario) -> None:
    recording, answers = play("0.5.23")
    (timeline,) = timelines(recording, "r1-9", [spec.parse("observed")])
    (sent,) = (entry for entry in timeline.entries if entry.kind is Kind.SENT)
    got = answers["r1-9"]
    tokens, rows = len(got["output_ids"]), len(got["indexer_topk"])
    assert sent.detail.startswith(f"{tokens} tokens in ")
    assert (
        f"(log probabilities: {tokens}, " in sent.detail and f"indexer rows: {rows})" in sent.detail
    )
    assert "hidden states" not in sent.detail


def _outcomes(recording: Recording) -> dict[str, LawOutcome]:
    columns = Columns(recording)
    found = check(columns, observed(columns))
    return {one.law.name: one for one in found if one.law.name in LAWS}
