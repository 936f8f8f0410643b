"""What a process keeps of its recordings: hooks find the one that runs, and nothing of one that has ended."""

from __future__ import annotations

import contextlib
import gc
import os
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from recorder_alone import Owner, events
from specdiff.recorders.capture import process_state
from specdiff.recorders.capture.config import Config
from specdiff.recorders.capture.process_state import ProcessState
from specdiff.recorders.schema import Kind
from strategies import RUN


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessState]:
    monkeypatch.setattr(process_state, "describe_run", lambda *_: RUN)
    monkeypatch.setattr(process_state, "rank_of", lambda _: {})
    monkeypatch.setattr(process_state, "_TURN_S", 0.01)  # these servers are idle
    made = ProcessState(Config(tmp_path, "r"), [])
    yield made
    os.close(made.note._fd)


def test_a_process_keeps_nothing_of_a_recording_that_has_ended(
    state: ProcessState, owner: Owner
) -> None:
    """A server that runs for months may be recorded often."""
    state.adopt(owner)
    for number in range(2):
        recorder = state.begin(state.config)
        path = recorder.path
        assert state.of_scheduler((owner,)) is recorder is state.of_process(())
        recorder.emit(Kind.ARRIVE, (number, 0))
        state.end(recorder)
        assert state.of_scheduler((owner,)) is None is state.of_process(())
        gone = weakref.ref(recorder)
        del recorder
        gc.collect()
        assert gone() is None
        assert events(path) == [(Kind.GAP, 1), (Kind.ARRIVE, number)]  # the GAP: it began late


def test_the_end_of_one_recording_leaves_that_of_another_scheduler(
    state: ProcessState, owner: Owner
) -> None:
    """Hooks of requests and batches have no scheduler, so they find the recording of the last one that took a turn."""
    other = Owner()
    state.adopt(owner)
    first = state.begin(state.config)
    state.adopt(other)
    second = state.begin(state.config)
    assert state.of_scheduler((owner,)) is first is state.of_process(())
    assert state.of_scheduler((other,)) is second is state.of_process(())
    state.end(first)
    assert state.of_process(()) is second is state.of_scheduler((other,))
    assert state.of_scheduler((owner,)) is None
    state.end(second)


@pytest.mark.parametrize("why", ["limit", "disk"])
def test_hooks_let_go_of_a_recording_that_ended_by_itself(
    why: str, state: ProcessState, owner: Owner
) -> None:
    """It reached its limit, or its disk refuses. Until someone ends it, hooks then cost nothing."""
    state.adopt(owner)
    recorder = state.begin(state.config)
    if why == "limit":
        recorder.ending = True
        recorder.end_turn()
    else:
        recorder.writer.stopped = True
    assert state.of_scheduler((owner,)) is None is state.of_process(())
    assert vars(owner) == {process_state._ATTRIBUTE: None}
    state.end(recorder)


def test_a_fork_of_a_recorded_process_is_not_recorded(state: ProcessState, owner: Owner) -> None:
    state.adopt(owner)
    recorder = state.begin(state.config)
    recorder.emit(Kind.ARRIVE, (1, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of threads that are not in the fork
        fork = os.fork()
    if not fork:
        with contextlib.suppress(BaseException):
            found = state.of_process(()), state.of_scheduler((owner,))
            recorder.emit(Kind.ARRIVE, (2, 0))
            recorder.close()
            os._exit(0 if found == (None, None) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]) == 0
    state.end(recorder)
    assert events(recorder.path) == [(Kind.GAP, 1), (Kind.ARRIVE, 1)]
