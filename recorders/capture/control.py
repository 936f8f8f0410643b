"""Start and stop recording on a running server, through a Unix socket (standard library only).

Each process has its own socket, which only its user can access. A request is one line of JSON, such
as `{"do": "status"}`; the answer is one line, too. `do` is start (with `directory`, `run_id` and
`options` as in `config.Config`), stop, flush or status. What `options` does not name is as the
server was started with. If a request fails, the answer has an `error`; nothing is ever raised into
the server.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import Config, with_options
from .control_socket import ControlSocket
from .online import Backoff
from .process_state import ProcessState
from .recorder import Recorder

if TYPE_CHECKING:
    from .writer import JournalWriter

logger = logging.getLogger("specdiff")

_WRONG_PROCESS = (
    "this is another process with the same pid, possibly in another container. Run the command where the recorded "
    "process runs"
)

_TIMEOUT_S = 5.0  # how long to wait for the disk
_RETRY_S = 0.1


@dataclass(slots=True)
class _Running:
    """The running recording, and when it is to end."""

    recorder: Recorder
    config: Config
    deadline: float | None
    backoff: Backoff
    kept: int = 0  # how many copies of the ring were kept


class Control:
    """The thread that answers requests, and that ends a recording when it reaches its limit."""

    def __init__(self, state: ProcessState, begun: Recorder | None = None) -> None:
        """`begun` is the recording that `Startup` has begun, if any."""
        self._state, self._pid = state, os.getpid()
        self._running: _Running | None = None
        if begun is not None:
            self.watch(begun, state.config)
        self._just_begun: _Running | None = None  # the recording that the current request has begun
        # Clients send this key, because a process in another container may have the same pid.
        self._key = secrets.token_hex(8)
        # The journal that was ended last, and its writer as long as that exists.
        self._last: str | None = None
        self._why = ""  # why it ended, if not by a request
        self._writer: Callable[[], JournalWriter | None] = lambda: None
        self._socket = ControlSocket(self._note_socket)
        self._thread = threading.Thread(target=self._run, name="specdiff-control", daemon=True)
        self._thread.start()

    def _note_socket(self, path: Path) -> None:
        """Write the path of the socket to the note.

        A client whose environment differs from the server's would look for it in another folder.
        """
        self._state.note.add(pid=self._pid, socket=str(path), key=self._key)

    def watch(self, recorder: Recorder, config: Config) -> None:
        deadline = None if config.seconds is None else time.monotonic() + config.seconds
        self._running = _Running(recorder, config, deadline, Backoff(config.ring_s or 0))

    def _run(self) -> None:
        while True:
            with contextlib.suppress(Exception):  # the next turn of the loop tries again
                self._end_what_is_over()
            try:
                self._answer_one()
            except Exception:  # noqa: BLE001 (go on, to check the limits)
                time.sleep(_RETRY_S)

    def _answer_one(self) -> None:
        """Answer the next request, if there is one.

        If the client has disconnected, the request is not carried out: the client has already
        reported it as failed.
        """
        connection = self._socket.next_request()
        if connection is None:
            return
        with contextlib.closing(connection):
            if connection.is_gone():
                return
            self._just_begun = None
            sent = connection.send(self._answer(connection.request))
            if not sent and self._just_begun is not None and self._just_begun is self._running:
                self._end_abandoned(self._just_begun)

    def _end_abandoned(self, running: _Running) -> None:
        """End a recording whose client disconnected before it got the answer.

        The user does not know of this recording and would never stop it.
        """
        self._end(running, "the client that requested it did not wait for it to begin")
        logger.warning(
            "specdiff: the client that requested %s did not wait for it to begin; the recording was ended",
            running.recorder.path,
        )

    def _end_what_is_over(self) -> None:
        running = self._running
        if running is None:
            return
        if why := _why_over(running):
            self._end(running, why)
        elif running.recorder.breach is not None:
            self._handle_breach(running, running.recorder.breach)

    def _handle_breach(self, running: _Running, breach: str) -> None:
        running.recorder.breach = None
        quiet_s = running.backoff.wait_after(breach, time.monotonic())
        if quiet_s is not None:
            try:
                kept = self._keep(running)
                where = f"are in {kept}" if kept else "could not be written to disk"
            except OSError as error:
                where = f"could not be kept: {error}"
            logger.warning(
                "specdiff: a law was broken: %s. The events before it %s. For this law, no more copies are kept for %.0f s.",
                breach,
                where,
                quiet_s,
            )

    def _keep(self, running: _Running) -> Path | None:
        """Keep a copy of a ring as a separate journal.

        Return its path, or None if the disk is too slow or refuses. Raises OSError if no copy can be
        made.
        """
        running.kept += 1
        folder = running.recorder.path.with_suffix(f".{running.kept}.journal")
        return folder if running.recorder.writer.keep(folder, _TIMEOUT_S) else None

    def _end(self, running: _Running, why: str = "") -> None:
        self._state.end(running.recorder)
        self._why = why
        self._writer = weakref.ref(running.recorder.writer)
        self._last, self._running = str(running.recorder.path), None

    def _answer(self, request: bytes) -> dict[str, Any]:
        try:
            fields = json.loads(request)
            if fields.get("key", self._key) != self._key:
                return {"pid": self._pid, "error": _WRONG_PROCESS}
            act = {
                "start": self._start,
                "stop": self._stop,
                "flush": self._flush,
                "status": self._status,
            }[fields["do"]]
            return {"pid": self._pid, **act(fields)}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return {
                "pid": self._pid,
                "error": f"request not understood ({error!r}): {request[:200]!r}",
            }
        except Exception as error:  # noqa: BLE001 (whatever it is, the server must not see it)
            return {"pid": self._pid, "error": f"{type(error).__name__}: {error}"}

    def _start(self, fields: dict[str, Any]) -> dict[str, Any]:
        if self._running is not None:
            return {"error": f"already records into {self._running.recorder.path}. Stop that first"}
        # A server that was started with --no-tokens must not record tokens because a `start` left
        # the option out.
        launched = dataclasses.replace(
            self._state.config,
            directory=Path(fields["directory"]),
            run_id=str(fields["run_id"]),
            paused=False,
        )
        config = with_options(launched, fields["options"])
        rank = {"rank": self._state.rank()}
        if left_out := self._state.why_left_out(config):
            note = f"does not record: {left_out}"
            return {"journal": None, "note": note, "left_out": left_out, **rank}
        recorder = self._state.begin(config)
        self.watch(recorder, config)
        self._just_begun = self._running
        return {"journal": str(recorder.path), "options": config.words, **rank}

    def _stop(self, fields: dict[str, Any]) -> dict[str, Any]:
        if self._running is None:
            return {**self._ended(), "note": "was not recording"}
        self._end(self._running)
        return self._ended()

    def _ended(self) -> dict[str, Any]:
        """Return the last journal and, if it is still locked, the reason as `kept`."""
        writer = self._writer()
        if writer is None or (writer.stopped and not writer.waiting_bytes):
            return {"journal": self._last}
        kept = {"waiting_bytes": writer.waiting_bytes, "disk": writer.error}
        return {"journal": self._last, "kept": kept}

    def _flush(self, fields: dict[str, Any]) -> dict[str, Any]:
        if self._running is None:
            return {**self._ended(), "note": "was not recording"}
        if self._running.config.ring_s is not None:
            try:
                kept = self._keep(self._running)
            except OSError as error:
                return {"journal": None, "written": False, "error": f"nothing was kept: {error}"}
            return {"journal": None if kept is None else str(kept), "written": kept is not None}
        written = self._running.recorder.writer.flush(_TIMEOUT_S)
        return {"journal": str(self._running.recorder.path), "written": written}

    def _status(self, fields: dict[str, Any]) -> dict[str, Any]:
        running = self._running
        if running is None:
            return {"recording": False, "why": self._why, **self._ended()}
        recorder, stats = running.recorder, running.recorder.stats(closed=False)
        return {
            "recording": True,
            "journal": str(recorder.path),
            "run_id": running.config.run_id,
            "choice": running.config.choice.words,
            "steps": stats.steps_measured,
            "events": stats.events,
            "dropped": stats.dropped,
            "exceptions": stats.exceptions,
            "step_ns_p50": stats.step_ns_p50,
            "step_ns_p99": stats.step_ns_p99,
            "step_ns_max": stats.step_ns_max,
            "waiting_bytes": recorder.writer.waiting_bytes,
            "disk": recorder.writer.error,
        }


def _why_over(running: _Running) -> str:
    """Return why a recording has to end, or an empty string if it goes on."""
    writer = running.recorder.writer
    if writer.stopped and (writer.error or writer.waiting_bytes):
        why = writer.error or "the disk hangs"
        return f"{running.recorder.path} can no longer be written: {why}"
    if writer.stopped:
        return "its process is ending"
    if running.recorder.ended:
        return f"its limit of {running.config.steps} steps was reached"
    if running.deadline is not None and time.monotonic() >= running.deadline:
        return f"its limit of {running.config.seconds:g} seconds was reached"
    return ""
