"""A probe: code that runs before and after a hooked function, and the wrapper that shields the server
from its errors."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .recorder import Recorder

MARK = "__specdiff_probe__"  # attribute of every wrapper: its role

_FAILED = object()  # the note of a `before` that raised

Before = Callable[..., Any]  # (recorder, *args, **kwargs of the hooked function) -> note
After = Callable[[Recorder, Any, Any], None]  # (recorder, note, returned)


@dataclass(frozen=True, slots=True)
class Probe:
    before: Before
    after: After
    ends_turn: bool = False  # the end of the function ends a turn of the scheduler loop


def nothing_before(recorder: Recorder, *_: Any, **__: Any) -> None:
    return None


def nothing_after(recorder: Recorder, note: Any, returned: Any) -> None:
    return None


def unhooked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return sglang's own function, without our probes."""
    while hasattr(function, MARK):
        function = function.__wrapped__  # type: ignore[attr-defined]
    return function


def wrap(
    original: Callable[..., Any],
    role: str,
    probe: Probe,
    current: Callable[[tuple[Any, ...]], Recorder | None],
) -> Callable[..., Any]:
    """Return a wrapper that calls `original` exactly once, outside of any `try`, with the probe around it.

    `current(args)` returns the recorder that is running, or None. An exception of the recorder is
    counted and leaves a GAP; an exception meant for the server (Ctrl-C) passes through. The code is
    inlined here instead of in helpers, because it runs a dozen times per step.
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
