"""The law `session`: a turn inherits only KV that was written. 0.5.15 broke it (docs/findings)."""

from __future__ import annotations

import dataclasses

import numpy as np

from gaps import without
from lifting import bundled_recording
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import Kind
from specdiff.replay import spec
from specdiff.replay.columns.shared import Columns
from specdiff.replay.explain import Toggles
from specdiff.replay.laws.check import check
from specdiff.replay.laws.law import LawOutcome, State
from specdiff.replay.verdict import ledger_of

BEFORE, AFTER = "0.5.14-session-hole", "0.5.15-session-hole"


def session_law(recording: Recording, path: str = "observed") -> LawOutcome:
    columns = Columns(recording)
    found = check(columns, ledger_of(columns, Toggles(columns), spec.parse(path)))
    assert {o.law.name for o in found if o.state is State.BROKEN} <= {"session"}
    return next(outcome for outcome in found if outcome.law.name == "session")


def test_0_5_14_keeps_the_law() -> None:
    found = session_law(bundled_recording(BEFORE))
    assert (found.state, found.num_checked) == (State.HOLDS, 1)


def test_0_5_15_breaks_the_law_by_one_position() -> None:
    found = session_law(bundled_recording(AFTER))
    assert (found.state, found.num_broken) == (State.BROKEN, 1)
    breach = found.first
    assert breach is not None and breach.kind is Kind.SESSION_RESTORE
    assert (breach.rid, breach.found, breach.high) == ("turn-1-0-1", 30, 29)


def test_lifted_paths_keep_or_break_the_law_on_both_recordings() -> None:
    for name in (BEFORE, AFTER):
        recording = bundled_recording(name)
        assert session_law(recording, "sglang==0.5.14").state is State.HOLDS
        assert session_law(recording, "sglang==0.5.15").state is State.BROKEN


def test_one_inherited_position_too_many_breaks_the_law() -> None:
    recording = bundled_recording(BEFORE)
    restores = dataclasses.replace(recording.restores, committed=recording.restores.committed + 1)
    falsified = dataclasses.replace(recording, restores=restores)
    assert session_law(falsified).state is State.BROKEN


def test_positions_after_the_previous_turns_stop_must_not_be_inherited() -> None:
    """It was written, but for tokens that the next prompt does not contain."""
    recording = bundled_recording(BEFORE)
    stop = recording.saves.finished_len.copy()
    stop[0] -= 2
    saves = dataclasses.replace(recording.saves, finished_len=stop)
    found = session_law(dataclasses.replace(recording, saves=saves))
    assert found.state is State.BROKEN and found.first is not None
    assert (found.first.found, found.first.high) == (29, recording.saves.origin_len[0] + stop[0])


def test_after_a_gap_the_law_is_not_checked() -> None:
    recording = bundled_recording(AFTER)
    (save,) = recording.event_of(Kind.SESSION_SAVE)[:1]
    launches = recording.event_of(Kind.LAUNCH)
    for lost in (save, launches[np.searchsorted(launches, save) - 2]):
        assert session_law(without(recording, int(lost), int(lost) + 1)).num_checked == 0
