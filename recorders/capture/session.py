"""The state of recording in this process: the running recorder, and the note for the parent process."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import itertools
import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..names import journal_name, next_number, note_name
from ..run import Run, Site
from .config import EVERY_STEP, Config
from .control import Control
from .describe import describe_run, sglang_version, why_not_spec_v2
from .descriptor import Identity, identity, is_still
from .probe import MARK
from .ranks import rank_of, why_not_this_rank
from .recorder import Recorder
from .sites import HookSite

logger = logging.getLogger("specdiff")

_ATTRIBUTE = "_specdiff_recorder"  # on a scheduler
_NOTE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
_HOOK_S = 0.05  # how long a hook that is already running may still take


class Session:
    """The state of one process. The hook wrappers keep it alive."""

    def __init__(self, config: Config, missing: Sequence[HookSite]) -> None:
        self.config = config
        self.missing_essential = [site for site in missing if site.essential]
        self.sites: Callable[[], tuple[Site, ...]] = tuple
        self.control: Control | None = None
        self._current: Recorder | None = None
        self._scheduler: Callable[[], Any] = lambda: None
        self._schedulers = 0
        self._note = self._note_pid = -1
        self._note_identity: Identity | None = None
        self._telling = threading.RLock()  # the control thread writes to the note, too
        self._note_path = Path()
        os.register_at_fork(after_in_child=self._forked)

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

    def wrap_init(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def hooked(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
            returned = original(scheduler, *args, **kwargs)
            try:
                self._constructed(scheduler)
            except Exception as error:  # noqa: BLE001 (the server must not see it)
                with contextlib.suppress(Exception):  # the error may be impossible to print
                    self._not_recorded(error)
            return returned

        setattr(hooked, MARK, "init")
        return hooked

    def _constructed(self, scheduler: Any) -> None:
        why = why_not_spec_v2(scheduler)
        if why is not None:
            self._add_to_note(constructed=True, journal=None, why=why)
            return
        detached = [site.name for site in self.sites() if site.essential and not site.attached]
        if detached:
            self._add_to_note(constructed=True, journal=None, detached=detached)
            return
        self._scheduler = weakref.ref(scheduler)
        begun: Recorder | None = None
        try:
            begun = self._begun(scheduler)
        finally:
            # The control socket opens in any case, but only now: an earlier `start` request would
            # begin a second recording.
            if self.control is None:
                self.control = Control(self, begun)
            elif begun is not None:
                self.control.watch(begun, self.config)

    def _begun(self, scheduler: Any) -> Recorder | None:
        """Begin the recording that was requested; return None if none is to begin now."""
        if self.config.paused:
            # Fills the caches, so that a later `start` does not delay the server.
            describe_run(scheduler, self.config, self.sites())
            self._add_to_note(constructed=True, journal=None, paused=True)
        elif (left_out := self.why_left_out(self.config)) is not None:
            self._add_to_note(
                constructed=True, journal=None, left_out=left_out, rank=rank_of(scheduler)
            )
        else:
            return self.begin(self.config)
        return None

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
        self._add_to_note(constructed=True, why=None, **what)
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
        """Stop recording and close the journal. A hook that is running finds the recorder closed."""
        recorder.ended = True
        scheduler = recorder.scheduler
        if scheduler is not None and getattr(scheduler, _ATTRIBUTE, None) is recorder:
            setattr(scheduler, _ATTRIBUTE, None)
        if self._current is recorder:
            self._current = None
        time.sleep(_HOOK_S)
        recorder.close()
        atexit.unregister(recorder.close)

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
        self._add_to_note(failed=f"{type(error).__name__}: {error}")

    def _journal(self, config: Config) -> Path:
        """Return a path for a new journal that seems to be free."""
        who = config.run_id, os.getpid()
        with contextlib.suppress(OSError):  # the folder may be writable even if it cannot be listed
            self._schedulers = next_number(config.directory, *who, self._schedulers)
        path = config.directory / journal_name(*who, self._schedulers)
        self._schedulers += 1
        return path

    # -- the note

    def note_attached(self) -> None:
        """Write to the note that a scheduler module was loaded here, and which sites it lacks.

        An OSError is ignored: the journal cannot be created either then, and that is reported.
        """
        with contextlib.suppress(OSError):
            self._note_attached()

    def _note_attached(self) -> None:
        # Do not close the old descriptor: in a fork it is the parent's, and otherwise it may by now
        # be a file that the server opened.
        self._note = -1
        if self._note_pid == os.getpid():
            self._note = os.open(self._note_path, _NOTE_FLAGS, 0o644)
        else:
            self._note, self._note_path = self._begin_note()
        self._note_pid, self._note_identity = os.getpid(), identity(self._note)
        fcntl.lockf(self._note, fcntl.LOCK_EX)  # held as long as this process lives
        missing = {site.role: list(site.places) for site in self.missing_essential}
        self._add_to_note(pid=os.getpid(), sglang_version=sglang_version()[0], missing=missing)

    def note_socket(self, path: Path, key: str) -> None:
        """Write the path of the control socket to the note.

        A client whose environment differs from the server's would look for it in another folder.
        """
        self._add_to_note(pid=os.getpid(), socket=str(path), key=key)

    def _begin_note(self) -> tuple[int, Path]:
        """Create a new note. A process with the same pid in another container may have one, too."""
        for number in itertools.count():
            path = self.config.directory / note_name(self.config.run_id, os.getpid(), number)
            with contextlib.suppress(FileExistsError):
                return os.open(path, _NOTE_FLAGS | os.O_EXCL, 0o644), path
        raise AssertionError("there is always another number")

    def _add_to_note(self, **what: Any) -> None:
        with self._telling:
            self._write_to_note(what)

    def _write_to_note(self, what: dict[str, Any]) -> None:
        if os.getpid() != self._note_pid or not is_still(self._note, self._note_identity):
            self.note_attached()  # this is a fork with its own scheduler, or the server closed the note
        with contextlib.suppress(OSError):
            os.write(self._note, json.dumps(what).encode() + b"\n")

    def _forked(self) -> None:
        """In a fork: stop recording. The fork has no writer thread, and the journal is its parent's."""
        recorder, self._current, self.control = self._current, None, None
        self._telling = threading.RLock()
        if recorder is not None:
            recorder.writer.abandon()
            if recorder.scheduler is not None:
                setattr(recorder.scheduler, _ATTRIBUTE, None)
