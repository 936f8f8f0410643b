"""Probes and their failures.

The server's own function runs exactly once and never sees an error of the recorder.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from recorder_alone import Owner, RequestStub, Thing, events, hook, last_stats, raising
from specdiff.recorders.capture import step_probes
from specdiff.recorders.capture.probe import (
    MARK,
    Probe,
    nothing_after,
    nothing_before,
    unhooked,
)
from specdiff.recorders.capture.recorder import Recorder
from specdiff.recorders.schema import Kind


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_failing_probe_is_counted_and_the_server_continues(
    where: str, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[tuple[Any, Any]] = []

    def original(*args: Any, **kwargs: Any) -> str:
        calls.append((args, kwargs))
        return "theirs"

    broken = raising(ValueError("ours"))
    probe = Probe(broken, nothing_after) if where == "before" else Probe(nothing_before, broken)
    hooked = hook(recorder, original, probe)
    assert [hooked(1, key=2), hooked(1, key=2)] == ["theirs", "theirs"]
    assert calls == [((1,), {"key": 2})] * 2
    assert (recorder.exceptions, recorder.first_exception) == (2, "ValueError: ours")
    assert len(caplog.records) == 1


def test_an_exception_that_cannot_be_printed_does_not_reach_the_server(recorder: Recorder) -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

    assert hook(recorder, lambda: 3, Probe(nothing_before, raising(Unprintable())))() == 3
    assert (recorder.exceptions, recorder.first_exception) == (1, "Unprintable")


def test_after_is_skipped_when_before_failed(recorder: Recorder) -> None:
    probe = Probe(raising(ValueError()), raising(AssertionError("must not run")))
    hook(recorder, lambda: None, probe)()
    assert recorder.exceptions == 1


@pytest.mark.parametrize("error", [ValueError("theirs"), KeyboardInterrupt(), SystemExit(3)])
def test_the_servers_own_exceptions_pass_unchanged(
    error: BaseException, recorder: Recorder
) -> None:
    hooked = hook(recorder, raising(error), Probe(nothing_before, raising(AssertionError())))
    with pytest.raises(type(error)) as caught:
        hooked()
    assert caught.value is error
    assert recorder.exceptions == 0


def test_ctrl_c_during_a_probe_reaches_the_server(recorder: Recorder) -> None:
    with pytest.raises(KeyboardInterrupt):
        hook(recorder, lambda: None, Probe(raising(KeyboardInterrupt()), nothing_after))()


def test_probes_do_not_run_while_nothing_is_recorded() -> None:
    broken = raising(AssertionError("must not run"))
    hooked = hook(None, lambda x: x + 1, Probe(broken, broken))
    assert hooked(1) == 2
    assert getattr(hooked, MARK) == "role"


def test_the_function_under_several_hooks_is_found(recorder: Recorder) -> None:
    twice = hook(
        None,
        hook(recorder, len, Probe(nothing_before, nothing_after)),
        Probe(nothing_before, nothing_after),
    )
    assert unhooked(twice) is len and unhooked(len) is len


def test_an_event_that_a_probe_loses_leaves_a_gap(recorder: Recorder, tmp_path: Path) -> None:
    hook(recorder, lambda: None, Probe(nothing_before, raising(ValueError())))()
    recorder.emit(Kind.ARRIVE, (1, 0))
    recorder.close()
    assert events(tmp_path / "j") == [(Kind.GAP, 1), (Kind.ARRIVE, 1)]
    assert last_stats(tmp_path / "j").dropped == 1


class Turn:
    """The parts of a batch that processing its result looks at."""

    def __init__(self, mode: str) -> None:
        self.reqs = [RequestStub("a")] if mode == "EXTEND" else []
        self.forward_mode = Thing()
        self.forward_mode._name_ = mode  # type: ignore[attr-defined]


def test_a_turn_costs_what_its_own_hooks_take(
    recorder: Recorder, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It includes everything up to the end of the hook that ends the turn.

    The cost of an idle turn is not reported.
    """
    monkeypatch.setattr(step_probes, "_extend_result", lambda *_: time.sleep(0.3))
    monkeypatch.setattr(step_probes, "_state", lambda *_: time.sleep(0.3))
    probe = step_probes.PROBES["process"]
    process = hook(recorder, lambda *_: None, probe)
    resolves = hook(recorder, lambda *_: setattr(recorder, "resolved", True), probe)
    overhead = recorder.overhead
    process(owner, Turn("EXTEND"), None)
    assert overhead.prefill.count == 1 and (overhead.prefill.max_ns or 0) > 6e8
    overhead.spent += 10**9
    process(owner, Turn("IDLE"), None)
    resolves(owner, Turn("DECODE"), None)
    assert (overhead.decode.count, overhead.prefill.count, overhead.steps) == (1, 1, 1)
    assert (overhead.decode.max_ns or 0) < 3e8 and overhead.spent == 0


def test_a_turn_that_the_recorder_cannot_end_does_not_affect_the_server(
    recorder: Recorder, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder.numbers, "end_turn", raising(TypeError("ours")))
    process = hook(recorder, lambda *_: "theirs", step_probes.PROBES["process"])
    assert process(owner, Turn("IDLE"), None) == "theirs"
    assert (recorder.exceptions, recorder.first_exception) == (1, "TypeError: ours")


class FailingBatch:
    """Fails either before the launch or after the launch was numbered."""

    seq_lens_sum = 0
    forward_mode = None

    def __init__(self, broken: str) -> None:
        self.broken, self.reads = broken, 0

    @property
    def reqs(self) -> list[Any]:
        if self.broken == "before":
            raise ValueError("ours")
        return []

    @property
    def seq_lens_cpu(self) -> None:
        raise ValueError("ours")


@pytest.mark.parametrize("broken", ["before", "after"])
def test_a_launch_whose_probe_fails_is_lost_and_its_result_unpaired(
    broken: str, recorder: Recorder, owner: Owner
) -> None:
    result = Thing()
    hooked = hook(recorder, lambda self, batch: result, step_probes.PROBES["launch"])
    assert hooked(owner, FailingBatch(broken)) is result
    assert recorder.exceptions == 1
    recorder.numbers.launch(Thing(), True)
    assert recorder.numbers.answered(result) is None
