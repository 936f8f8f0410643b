"""The state of recording in this process: its scheduler, and the recorder that runs."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..file_names import journal_name, next_number
from ..run import Run, Site
from .config import EVERY_STEP, Config
from .describe import describe_run, sglang_version
from .note_writer import NoteWriter
from .recorder import Recorder
from .scheduler_rank import rank_of, why_not_this_rank
from .sites import HookSite

logger = logging.getLogger("specdiff")

_ATTRIBUTE = "_specdiff_recorder"  # on a scheduler
_TURN_S = 0.25  # how long to wait for the scheduler to end its turn; an idle one has none
_POLL_S = 0.002
_HOOK_S = 0.05  # how long a hook that is already running may still take


class ProcessState:
    """The state of one process. The hook wrappers keep it alive."""

    def __init__(self, config: Config, missing: Sequence[HookSite]) -> None:
        self.config = config
        self.missing_essential = [site for site in missing if site.essential]
        self.sites: Callable[[], tuple[Site, ...]] = tuple
        self.note = NoteWriter(config.directory, config.run_id, self._described)
        self._current: Recorder | None = None
        self._scheduler: Callable[[], Any] = lambda: None
        self._schedulers = 0
        os.register_at_fork(after_in_child=self._forked)

    def _described(self) -> dict[str, Any]:
        """Return what the note says first: this process's sglang, and which sites it lacks."""
        missing = {site.role: list(site.places) for site in self.missing_essential}
        return {"sglang_version": sglang_version()[0], "missing": missing}

    # -- the current recorder

    def of_scheduler(self, args: tuple[Any, ...]) -> Recorder | None:
        """Return the recorder of the scheduler whose method is called, and make it the current one."""
        recorder = getattr(args[0], _ATTRIBUTE, None) if args else None
        if recorder is not None:
            if recorder.ended or recorder.writer.stopped:  # remove it, so that hooks cost nothing
                recorder = None
                setattr(args[0], _ATTRIBUTE, None)
            self._current = recorder
        return recorder

    def of_process(self, args: tuple[Any, ...]) -> Recorder | None:
        """Return the current recorder, for batches, requests and functions, which have no scheduler."""
        return self._current

    def adopt(self, scheduler: Any) -> None:
        """Make this the scheduler that `begin` records."""
        self._scheduler = weakref.ref(scheduler)

    def why_left_out(self, config: Config) -> str | None:
        """Return why this scheduler is not to be recorded (another has the same books), or None."""
        return None if config.all_ranks else why_not_this_rank(self._scheduler())

    def rank(self) -> dict[str, Any]:
        return rank_of(self._scheduler())

    def begin(self, config: Config) -> Recorder:
        """Record this process's scheduler from now on. Raises OSError if no journal can be created."""
        scheduler = self._scheduler()
        run = describe_run(scheduler, config, self.sites())
        recorder = self._recorder(scheduler, config, run)
        path = recorder.path
        atexit.register(recorder.close)
        what = {"journal": path.name, "folder": str(path.parent), "rank": rank_of(scheduler)}
        self.note.add(constructed=True, why=None, **what)
        self._current = recorder
        setattr(scheduler, _ATTRIBUTE, recorder)
        return recorder

    def _recorder(self, scheduler: Any, config: Config, run: Run) -> Recorder:
        while True:
            path = self._journal(config)
            # A process with the same pid in another container may have taken this name.
            with contextlib.suppress(FileExistsError):
                return Recorder(
                    scheduler,
                    path,
                    config.buffer_mb << 20,
                    run,
                    config.durability == EVERY_STEP,
                    config.choice,
                    config.steps,
                    late=bool(getattr(scheduler, "forward_ct", 0)),
                    ring_s=config.ring_s,
                )

    def end(self, recorder: Recorder) -> None:
        """Stop recording at the end of the current turn, and close the journal.

        After a moment it ends anyway: the server is idle, or its turn takes long. A hook that is
        running finds the recorder closed.
        """
        recorder.ending, late = True, time.monotonic() + _TURN_S
        while not recorder.ended and time.monotonic() < late:
            time.sleep(_POLL_S)
        recorder.ended = True
        scheduler = recorder.scheduler
        if scheduler is not None and getattr(scheduler, _ATTRIBUTE, None) is recorder:
            setattr(scheduler, _ATTRIBUTE, None)
        if self._current is recorder:
            self._current = None
        time.sleep(_HOOK_S)
        recorder.close()
        atexit.unregister(recorder.close)

    def _journal(self, config: Config) -> Path:
        """Return a path for a new journal that seems to be free."""
        who = config.run_id, os.getpid()
        with contextlib.suppress(OSError):  # the folder may be writable even if it cannot be listed
            self._schedulers = next_number(config.directory, *who, self._schedulers)
        path = config.directory / journal_name(*who, self._schedulers)
        self._schedulers += 1
        return path

    def _forked(self) -> None:
        """In a fork: stop recording. The journal is its parent's, and its writer is abandoned by itself."""
        self._current = None
