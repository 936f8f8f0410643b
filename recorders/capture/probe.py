"""A probe: what is done before and after one hooked function, and the wrapper that keeps it away from the server."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .recorder import Recorder

MARK = "__specdiff_probe__"  # on every wrapper: the role it serves

_FAILED = object()  # the note of what raised

Before = Callable[..., Any]  # (recorder, *args, **kwargs of the hooked function) -> note
After = Callable[[Recorder, Any, Any], None]  # (recorder, note, returned)


@dataclass(frozen=True, slots=True)
class Probe:
    before: Before
    after: After
    ends_turn: bool = False  # of the scheduler's loop, when all of it is done


def nothing_before(recorder: Recorder, *_: Any, **__: Any) -> None:
    return None


def nothing_after(recorder: Recorder, note: Any, returned: Any) -> None:
    return None


def unhooked(function: Callable[..., Any]) -> Callable[..., Any]:
    """sglang's own function, without any probe of ours."""
    while hasattr(function, MARK):
        function = function.__wrapped__  # type: ignore[attr-defined]
    return function


def wrap(
    original: Callable[..., Any],
    role: str,
    probe: Probe,
    current: Callable[[tuple[Any, ...]], Recorder | None],
) -> Callable[..., Any]:
    """`original`, called exactly once and outside any try of ours, with the probe around it.

    `current(args)` says who records now, if anyone does. What the recorder raises is counted and leaves a gap; what is meant
    for the server (Ctrl-C) passes. Both are written out here rather than called: this runs a dozen times a step.
    """
    before, after, ends_turn = probe.before, probe.after, probe.ends_turn
    now = time.perf_counter_ns

    @functools.wraps(original)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        recorder = current(args)
        if recorder is None:
            return original(*args, **kwargs)
        began = now()
        try:
            note = before(recorder, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 (whatever it is, the server must not see it)
            recorder.lost(error)
            note = _FAILED
        spent = now() - began
        returned = original(*args, **kwargs)
        began = now()
        if note is not _FAILED:
            try:
                after(recorder, note, returned)
            except Exception as error:  # noqa: BLE001
                recorder.lost(error)
        recorder.overhead.spent += spent + now() - began
        if ends_turn:
            try:
                recorder.end_turn()
            except Exception as error:  # noqa: BLE001
                recorder.failed(error)
        return returned

    setattr(hooked, MARK, role)
    return hooked
