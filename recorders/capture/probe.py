"""A probe: what is done before and after one hooked function, and the wrapper that keeps it away from the server."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .recorder import Recorder

MARK = "__specdiff_probe__"  # on every wrapper: the role it serves

Before = Callable[..., Any]  # (recorder, *args, **kwargs of the hooked function) -> note
After = Callable[[Recorder, Any, Any], None]  # (recorder, note, returned)


@dataclass(frozen=True, slots=True)
class Probe:
    before: Before
    after: After


@dataclass(frozen=True, slots=True)
class Nothing:
    """The note of a `before` that failed: its `after` is skipped."""


_FAILED = Nothing()


def nothing_before(recorder: Recorder, *_: Any, **__: Any) -> None:
    return None


def nothing_after(recorder: Recorder, note: Any, returned: Any) -> None:
    return None


def wrap(
    original: Callable[..., Any],
    role: str,
    probe: Probe,
    current: Callable[[tuple[Any, ...]], Recorder | None],
) -> Callable[..., Any]:
    """`original`, called exactly once and outside any try of ours, with the probe around it.

    `current(args)` says who records now, if anyone does.
    """

    @functools.wraps(original)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        recorder = current(args)
        if recorder is None:
            return original(*args, **kwargs)
        note = _guarded(recorder, probe.before, recorder, *args, **kwargs)
        returned = original(*args, **kwargs)
        if note is not _FAILED:
            _guarded(recorder, probe.after, recorder, note, returned)
        return returned

    setattr(hooked, MARK, role)
    return hooked


def _guarded(recorder: Recorder, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run recorder code; its exceptions are counted and leave a gap, those meant for the server (Ctrl-C) pass."""
    began = time.perf_counter_ns()
    try:
        return function(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 (whatever it is, the server must not see it)
        recorder.lost(error)
        return _FAILED
    finally:
        recorder.overhead.spend(time.perf_counter_ns() - began)
