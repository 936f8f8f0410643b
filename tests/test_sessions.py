"""Streaming sessions of real schedulers: what a session keeps of a turn and what the next turn inherits."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from children import on_demand
from gaps import without
from inherited import Inherited, SavedTurn, kept_and_inherited
from lifting import Changed, against_observed, compiled, release
from recorded import RigRecorder
from recorder_alone import Owner, RequestStub, Thing, hook
from specdiff.fixtures.rig.capture_rows import topk_rows
from specdiff.fixtures.rig.errors import RigError
from specdiff.fixtures.rig.scenarios import find_scenario
from specdiff.fixtures.rig.script import RequestScript, Scenario
from specdiff.fixtures.rig.tokens import token
from specdiff.recorders.build import build
from specdiff.recorders.capture.numbering import Numbering
from specdiff.recorders.capture.recorder import Recorder
from specdiff.recorders.capture.session_probes import PROBES
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import NONE64, Kind, Reason
from specdiff.replay.columns.shared import Columns
from specdiff.replay.lift.ledger import ledger_of
from specdiff.replay.observed import observed
from specdiff.replay.quantity import Quantity as Q
from strategies import RUN

# How sessions keep lengths: as copies; as copies trimmed to what was returned; as one record lent to each turn.
ERAS = ("0.5.10", "0.5.13", "0.5.23")
CASES = [("0.5.10", "sessions"), ("0.5.23", "sessions-random")]
CASES += on_demand(
    ("0.5.13", "sessions"),
    ("0.5.23", "sessions"),
    ("0.5.10", "sessions-random"),
    ("0.5.13", "sessions-random"),
)
SEED = 1


@pytest.mark.parametrize(("version", "scenario"), CASES)
def test_the_lifted_release_equals_its_server(
    version: str, scenario: str, record: RigRecorder
) -> None:
    recording = record(version, scenario, SEED)
    with release(version) as source:
        found = against_observed(recording, compiled(source))
    assert len(found[Q.SESSION_COMMITTED].old.cells) >= 28
    for quantity, difference in found.items():
        assert not difference.differs.any(), quantity
        # Once a session has taken a turn, its claimed slots are not known. This server has no indexer.
        if quantity is Q.KV_COMMITTED_LEN_SETTLED:
            lost = difference.not_captured
            taken = torch.isin(difference.old.cells.qid[lost], torch.tensor(recording.saves.qid))
            assert taken.all() and (difference.old.cells.kind[lost] == Kind.RESULT).all()
        elif quantity is not Q.INDEXER_TOPK:
            assert not difference.not_captured.any(), quantity


@pytest.mark.parametrize(("version", "scenario"), CASES)
def test_the_recordings_contain_every_kind_of_turn(
    version: str, scenario: str, record: RigRecorder
) -> None:
    recording = record(version, scenario, SEED)
    saves, restores = recording.saves, recording.restores
    turns = {(s, q) for s, q in zip(saves.session.tolist(), saves.qid.tolist(), strict=True)}
    assert max(sum(s == session for s, _ in turns) for session in set(saves.session)) >= 4
    finished = saves.finished_len != NONE64
    overshoot = finished & (saves.output_len > saves.finished_len)
    assert {Reason.STOP_TOKEN, Reason.LENGTH} <= set(saves.reason[overshoot])
    aborted, retracted = saves.reason == Reason.ABORT, saves.reason == NONE64
    assert aborted.any() and retracted.any()
    assert set(saves.qid[retracted]) == set(recording.retracts.qid) & set(saves.qid)
    assert set(restores.qid) >= set(saves.qid[retracted])  # each restored what was kept of it
    keeps_none = saves.committed == NONE64
    if version == "0.5.10":
        assert not keeps_none.any()  # 0.5.10 keeps what an aborted turn leaves
        assert (saves.committed == saves.committed_before).all()
    else:
        assert (keeps_none == aborted).all()
        returned = saves.origin_len + saves.finished_len
        assert (saves.committed[overshoot] <= returned[overshoot]).all()
        assert (saves.committed[overshoot] < saves.committed_before[overshoot]).any()
    assert _first_turns_that_hit_the_cache(recording) >= 1
    assert len(set(recording.rids)) > len(set(saves.qid)) > 0  # ordinary requests ran, too


def _first_turns_that_hit_the_cache(recording: Recording) -> int:
    first = set(recording.saves.qid) - set(recording.restores.qid)
    rows = recording.extend_rows
    return int(np.isin(rows.qid[rows.prefix_len > 0], list(first)).sum())


@pytest.mark.parametrize("version", ERAS)
def test_a_recording_names_the_session_of_each_turn(version: str, record: RigRecorder) -> None:
    recording = record(version, "sessions", SEED)
    named = [json.loads(details)["session_id"] for details in recording.details]
    scripts = {r.rid: r.session or None for r in find_scenario("sessions", SEED, None).requests}
    assert named == [scripts[rid] for rid in recording.rids]
    sites = {site.name: site.attached for site in recording.run.sites}
    assert sites["session-save"] and sites["session-restore"]
    pairs = {named[q]: s for q, s in zip(recording.saves.qid, recording.saves.session, strict=True)}
    assert None not in pairs and len(set(pairs.values())) == len(pairs)


@pytest.mark.parametrize("version", ERAS)
def test_lifted_books_read_no_observed_lengths(version: str, record: RigRecorder) -> None:
    recording = record(version, "sessions", SEED)
    lied = dataclasses.replace(
        recording,
        saves=_shifted(recording.saves, "committed_before allocated_before committed allocated"),
        restores=_shifted(recording.restores, "committed allocated"),
        releases=_shifted(recording.releases, "committed committed_after released_len"),
    )
    with release(version) as source:
        made = compiled(source)
    told, true = (ledger_of(Columns(one), made, "lifted") for one in (lied, recording))
    for one, other in zip(told.series, true.series, strict=True):
        assert torch.equal(one.values, other.values), one.quantity
        assert torch.equal(one.captured, other.captured), one.quantity
    assert not torch.equal(
        observed(Columns(lied))[Q.SESSION_COMMITTED].values,
        observed(Columns(recording))[Q.SESSION_COMMITTED].values,
    )


def _shifted(table: Any, names: str) -> Any:
    columns = {name: getattr(table, name) for name in names.split()}
    moved = {n: np.where(column == NONE64, column, column + 7) for n, column in columns.items()}
    return dataclasses.replace(table, **moved)


@pytest.mark.parametrize("version", ERAS)
def test_values_that_a_gap_hides_are_not_captured_rather_than_wrong(
    version: str, record: RigRecorder
) -> None:
    recording = record(version, "sessions", SEED)
    with release(version) as source:
        made = compiled(source)
    size = len(recording.events.kind)
    lost = compared = 0
    for start in range(0, size - 12, size // 37):
        found = against_observed(without(recording, start, start + 12), made)
        for quantity, difference in found.items():
            assert not difference.differs.any(), (start, quantity)
        lost += int(found[Q.SESSION_COMMITTED].not_captured.sum())
        compared += found[Q.SESSION_COMMITTED].num_compared
    assert lost > 20 and compared > 300


@dataclass(frozen=True)
class Mutation:
    """One broken line in one function of a release."""

    version: str
    function: str
    old: str
    new: str

    @property
    def path(self) -> str:
        if self.version == "0.5.10":
            return "srt/mem_cache/session_aware_cache.py"
        return "srt/session/streaming_session.py"


MUTATIONS = {
    "a session of 0.5.10 keeps one less": Mutation(
        "0.5.10", "save_from_req", "= req.kv_committed_len", "= req.kv_committed_len - 1"
    ),
    "a turn of 0.5.10 inherits what is allocated": Mutation(
        "0.5.10",
        "restore_to_req",
        "req.kv_committed_len = self.kv_committed_len",
        "req.kv_committed_len = self.kv_allocated_len",
    ),
    "the overshoot stays": Mutation(
        "0.5.13",
        "_trim_overshoot",
        "req.kv_committed_len = min(req.kv_committed_len, target)",
        "pass",
    ),
    "an aborted turn is kept": Mutation(
        "0.5.13", "try_cache_finished_req", "isinstance(req.finished_reason, FINISH_ABORT)", "False"
    ),
    "a slot keeps more than there is to match": Mutation(
        "0.5.13",
        "_free_tail",
        "req.kv_committed_len = min(req.kv_committed_len, prefix_len)",
        "pass",
    ),
    "a session keeps one less": Mutation(
        "0.5.23", "try_cache_finished_req", "= min(target,", "= min(target - 1,"
    ),
    "a session keeps what the request has committed": Mutation(
        "0.5.23",
        "try_cache_finished_req",
        "slot.kv.kv_committed_len = min(target, slot.kv.kv_allocated_len)",
        "pass",
    ),
    "the slot of an aborted turn is not deleted": Mutation(
        "0.5.23", "try_cache_finished_req", "del self.slots[req.session.session_id]", "pass"
    ),
    "a lent record keeps its tail": Mutation(
        "0.5.23",
        "_free_tail",
        "kv.kv_committed_len = min(kv.kv_committed_len, prefix_len)",
        "pass",
    ),
}


@pytest.mark.parametrize("what", MUTATIONS)
def test_a_broken_line_shows_in_what_sessions_keep(what: str, record: RigRecorder) -> None:
    mutation = MUTATIONS[what]
    recording = record(mutation.version, "sessions", SEED)
    with release(mutation.version) as source:
        changed = Changed(source, mutation.path, mutation.function, mutation.old, mutation.new)
        found = against_observed(recording, compiled(changed))
    assert found[Q.SESSION_COMMITTED].differs.any()
    assert not found[Q.KV_COMMITTED_LEN_SETTLED].differs[_not_stale(found)].any()


def _not_stale(found: dict[Q, Any]) -> Any:
    """An extend seeds the length that a turn begins with, so only a result after a save can show a wrong one."""
    return found[Q.KV_COMMITTED_LEN_SETTLED].old.cells.kind != Kind.RESULT


def test_0_5_10_lets_a_turn_inherit_tokens_that_were_never_returned(record: RigRecorder) -> None:
    kept, inherited = kept_and_inherited(record("0.5.10", "sessions-random", SEED))
    assert any(one.committed > one.visible for one in kept)
    assert any(one.length > one.kept.visible for one in inherited)
    assert all(one.committed <= one.written for one in kept)


def test_0_5_13_lets_a_turn_inherit_only_tokens_that_were_returned_and_written(
    record: RigRecorder,
) -> None:
    kept, inherited = kept_and_inherited(record("0.5.13", "sessions-random", SEED))
    assert all(one.committed <= min(one.visible, one.written) for one in kept)
    assert all(one.length <= min(one.kept.visible, one.kept.written) for one in inherited)
    assert len(inherited) > 40
    # the turns on which 0.5.23 fails
    assert any(not one.in_flight and not one.retracted for one in kept)


def test_0_5_23_lets_a_turn_inherit_a_position_that_no_forward_wrote(record: RigRecorder) -> None:
    """Known since 0.5.15: a session keeps all returned tokens, but only the verify after the last one writes its KV.

    If a prefill came next, there is no such verify (docs/findings).
    """
    recording = record("0.5.23", "sessions-random", SEED)
    kept, inherited = kept_and_inherited(recording)
    assert all(one.committed <= one.visible for one in kept)
    holes = [one for one in inherited if one.length > one.kept.written]
    assert holes
    assert {one.length - one.kept.written for one in holes} == {1}
    assert not any(one.kept.in_flight or one.kept.retracted for one in holes)
    wrong = [_is_row_of_its_token(recording, one) for one in holes]
    sound = [_is_row_of_its_token(recording, one) for one in inherited if _ends_sound(one, holes)]
    assert wrong.count(False) >= 3 and True not in wrong
    assert sound.count(True) >= 10 and False not in sound


def _ends_sound(one: Inherited, holes: list[Inherited]) -> bool:
    """Say whether the last inherited position is that of the last returned token, and was written."""
    return one not in holes and not one.kept.retracted and one.length == one.kept.visible


def _is_row_of_its_token(recording: Recording, one: Inherited) -> bool | None:
    """Say whether the routed row captured for the last inherited position is that of the token there.

    Return None if the turn did not ask for the row. The rig computes rows from position and token.
    """
    finishes, position = recording.finishes, one.length - 1
    (ref,) = np.flatnonzero(finishes.qid == one.qid) if one.qid in finishes.qid else (-1,)
    start, rows = int(finishes.experts_start[ref]), int(finishes.experts_stored[ref])
    if ref < 0 or not start <= position < start + rows:
        return None
    first = int(finishes.experts_stored[:ref].sum())
    row = recording.experts[first + position - start]
    before = _rid_and_length(recording, one.kept)
    return bool((topk_rows([position], [token(before[0], before[1] - 1)])[0] == row).all())


def _rid_and_length(recording: Recording, kept: SavedTurn) -> tuple[str, int]:
    """Return the rid of the turn that was kept, and how many tokens it returned."""
    ref = np.flatnonzero(recording.finishes.qid == kept.qid)[0]
    return recording.rids[kept.qid], int(recording.finishes.finished_len[ref])


@pytest.mark.parametrize("on_slot", [True, False])  # up to 0.5.18; later
@pytest.mark.parametrize("case", ["", "no slot", "empty slot", "not streaming", "rejected"])
def test_only_a_turn_that_takes_over_kv_restores_its_session(
    case: str, on_slot: bool, owner: Owner, tmp_path: Path
) -> None:
    """From 0.5.11 on, a turn that is to be aborted is rejected, and leaves its session."""
    recorder = Recorder(owner, tmp_path / "j", 1 << 20, RUN)
    req, session, slot, cache, params = RequestStub("a"), Thing(), Thing(), Thing(), Thing()
    vars(session).update(streaming=case != "not streaming", session_id="s")
    vars(req).update(session=session, kv_committed_len=9, kv_allocated_len=12)
    holds = case != "empty slot"
    held = SimpleNamespace(holds_kv=holds)
    vars(slot).update({"is_holding_kv": holds} if on_slot else {"kv": held})
    vars(cache).update(slots={} if case == "no slot" else {"s": slot})
    vars(params).update(req=req, key=range(7))
    returned = None if case == "rejected" else object()
    match = hook(recorder, lambda *_: returned, PROBES["session-restore"])
    assert match(cache, params) is returned
    recorder.close()
    restores = build(tmp_path / "j").restores
    found = [restores.key_len, restores.committed, restores.allocated]
    assert [column.tolist() for column in found] == ([[], [], []] if case else [[7], [9], [12]])
    assert recorder.exceptions == 0


def test_a_session_reopened_under_its_old_name_gets_a_new_number() -> None:
    class Opened:
        session_id = "the same name"

    numbers, first, second = Numbering(lambda *_: None), Opened(), Opened()
    assert [numbers.session(one) for one in (first, second, first)] == [0, 1, 0]
    assert Numbering(lambda *_: None).session(second) == 0  # another recorder has its own numbers


def test_a_scenario_whose_turns_are_not_chained_is_refused() -> None:
    one = RequestScript("a", session="s")
    with pytest.raises(RigError, match="'b' follows '', but the previous turn in session 's'"):
        Scenario("turns", (one, RequestScript("b", session="s")))
    with pytest.raises(RigError, match=r"follows is .*, expected nothing without a session"):
        RequestScript("b", follows="a")
