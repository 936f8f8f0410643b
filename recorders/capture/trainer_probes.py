"""The probes of a trainer's control requests: pause, continue, flush the cache, change weights."""

from __future__ import annotations

from typing import Any

from ..schema import NONE64, ControlAct, Kind
from .describe import serving_weights
from .probe import Probe, nothing_before
from .recorder import Recorder

_PAUSES = {"in_place": ControlAct.PAUSE, "retract": ControlAct.PAUSE_RETRACT}


def _pause_before(recorder: Recorder, self: Any, recv_req: Any, *_: Any, **__: Any) -> Any:
    return _PAUSES.get(recv_req.mode)


def _pause_after(recorder: Recorder, act: ControlAct | None, _: None) -> None:
    if act is not None:
        recorder.emit(Kind.CONTROL, (act, NONE64, NONE64))


def _continue_after(recorder: Recorder, note: None, _: None) -> None:
    recorder.emit(Kind.CONTROL, (ControlAct.CONTINUE, NONE64, NONE64))


def _flush_after(recorder: Recorder, note: None, flushed: Any) -> None:
    if flushed:
        recorder.emit(Kind.CONTROL, (ControlAct.FLUSH, NONE64, NONE64))


def _weights_before(recorder: Recorder, self: Any, *_: Any, **__: Any) -> str | None:
    return serving_weights()


def _weights_after(recorder: Recorder, before: str | None, _: None) -> None:
    now = serving_weights()
    if before is not None and now is not None and now != before:
        values = (ControlAct.WEIGHTS, recorder.weights(before), recorder.weights(now))
        recorder.emit(Kind.CONTROL, values)


PROBES = {
    "pause": Probe(_pause_before, _pause_after),
    "continue": Probe(nothing_before, _continue_after),
    "flush": Probe(nothing_before, _flush_after),
    "weights": Probe(_weights_before, _weights_after),
}
