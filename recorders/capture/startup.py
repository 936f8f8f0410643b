"""What happens when sglang has constructed a scheduler: recording begins, and the control socket opens."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable
from typing import Any

from .control import Control
from .describe import describe_run, why_not_spec_v2
from .probe import MARK
from .process_state import ProcessState
from .recorder import Recorder

logger = logging.getLogger("specdiff")


class Startup:
    """Wraps the constructor of sglang's scheduler."""

    def __init__(self, state: ProcessState) -> None:
        self._state = state
        self.control: Control | None = None
        os.register_at_fork(after_in_child=self._forked)

    def wrap(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def hooked(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
            returned = original(scheduler, *args, **kwargs)
            try:
                self.constructed(scheduler)
            except Exception as error:  # noqa: BLE001 (the server must not see it)
                with contextlib.suppress(Exception):  # the error may be impossible to print
                    self._not_recorded(error)
            return returned

        setattr(hooked, MARK, "init")
        return hooked

    def constructed(self, scheduler: Any) -> None:
        """Begin the recording that was requested, and open the control socket."""
        state = self._state
        why = why_not_spec_v2(scheduler)
        if why is not None:
            state.note.add(constructed=True, journal=None, why=why)
            return
        detached = [site.name for site in state.sites() if site.essential and not site.attached]
        if detached:
            state.note.add(constructed=True, journal=None, detached=detached)
            return
        state.adopt(scheduler)
        begun: Recorder | None = None
        try:
            begun = self._begun(scheduler)
        finally:
            # The control socket opens in any case, but only now: an earlier `start` request would
            # begin a second recording.
            if self.control is None:
                self.control = Control(state, begun)
            elif begun is not None:
                self.control.watch(begun, state.config)

    def _begun(self, scheduler: Any) -> Recorder | None:
        """Begin the recording that was requested; return None if none is to begin now."""
        state = self._state
        if state.config.paused:
            # Fills the caches, so that a later `start` does not delay the server.
            describe_run(scheduler, state.config, state.sites())
            state.note.add(constructed=True, journal=None, paused=True)
        elif (left_out := state.why_left_out(state.config)) is not None:
            state.note.add(constructed=True, journal=None, left_out=left_out, rank=state.rank())
        else:
            return state.begin(state.config)
        return None

    def _not_recorded(self, error: Exception) -> None:
        """Log and note that recording could not begin.

        An OSError (a folder that is full, missing or forbidden) needs no traceback. Any other error
        is a bug in the recorder.
        """
        traceback = None if isinstance(error, OSError) else error
        logger.warning(
            "specdiff: this scheduler is not recorded (%s). The server goes on.",
            error,
            exc_info=traceback,
        )
        self._state.note.add(failed=f"{type(error).__name__}: {error}")

    def _forked(self) -> None:
        self.control = None  # its thread is not in the fork
