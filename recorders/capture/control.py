"""Start and stop on a running server: a Unix socket of this process, for its own user only (standard library only).

A line of JSON asks (`{"do": "status"}`), a line answers. `do`: start (`directory`, `run_id`, `options` as `config.Config` has
them), stop, flush, status. What cannot be done is answered with `error`; nothing is ever raised into the server.
"""

from __future__ import annotations

import contextlib
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

if TYPE_CHECKING:
    from .recorder import Recorder
    from .session import Session
    from .writer import JournalWriter

logger = logging.getLogger("specdiff")

_ANOTHER = (
    "is another process of that number, of another container, say: ask where the recorded one runs"
)

_PATIENCE_S = 5.0  # for the disk
_AGAIN_S = 0.1


@dataclass(slots=True)
class _At:
    """The recorder at work, and when it is to end."""

    recorder: Recorder
    config: Config
    deadline: float | None
    backoff: Backoff
    kept: int = 0  # how often the ring was


class Control:
    """The thread that answers, and that ends what has reached its limit."""

    def __init__(self, session: Session, begun: Recorder | None = None) -> None:
        """`begun`: the session's own recording."""
        self._session, self._pid = session, os.getpid()
        self._at: _At | None = None
        if begun is not None:
            self.watch(begun, session.config)
        self._asked_for: _At | None = None  # by who is being answered
        self._key = secrets.token_hex(8)  # another container's process may have our number
        # The journal that was ended last, and its writer while that lives.
        self._last: str | None = None
        self._why = ""  # it ended, where nobody asked for that
        self._writer: Callable[[], JournalWriter | None] = lambda: None
        self._socket = ControlSocket(lambda path: session.note_socket(path, self._key))
        self._thread = threading.Thread(target=self._run, name="specdiff-control", daemon=True)
        self._thread.start()

    def watch(self, recorder: Recorder, config: Config) -> None:
        deadline = None if config.seconds is None else time.monotonic() + config.seconds
        self._at = _At(recorder, config, deadline, Backoff(config.ring_s or 0))

    def _run(self) -> None:
        while True:
            with contextlib.suppress(Exception):  # it is tried again
                self._end_what_is_over()
            try:
                self._answer_one()
            except Exception:  # noqa: BLE001 (limits are still to be looked at)
                time.sleep(_AGAIN_S)

    def _answer_one(self) -> None:
        """What somebody has given up asking for is not done: he was told that it had failed."""
        connection = self._socket.who_asks()
        if connection is None:
            return
        with contextlib.closing(connection):
            if connection.is_gone():
                return
            self._asked_for = None
            told = connection.tell(self._answer(connection.question))
            if not told and self._asked_for is not None and self._asked_for is self._at:
                self._unknown(self._asked_for)

    def _unknown(self, at: _At) -> None:
        """He went while it began: a recording that nobody knows of would never be stopped."""
        self._end(at, "who asked for it did not wait for it to begin")
        logger.warning(
            "specdiff: who asked for %s did not wait for it to begin: it is ended", at.recorder.path
        )

    def _end_what_is_over(self) -> None:
        at = self._at
        if at is None:
            return
        if why := _why_over(at):
            self._end(at, why)
        elif at.recorder.breach is not None:
            self._broken(at, at.recorder.breach)

    def _broken(self, at: _At, breach: str) -> None:
        at.recorder.breach = None
        quiet_s = at.backoff.wait_after(breach, time.monotonic())
        if quiet_s is not None:
            kept = self._keep(at)
            where = f"is in {kept}" if kept else "could not be kept: the disk does not take it"
            logger.warning(
                "specdiff: %s. What led to it %s (of this law, nothing more is kept for %.0f s)",
                breach,
                where,
                quiet_s,
            )

    def _keep(self, at: _At) -> Path | None:
        """The last seconds of a ring, as a journal of its own; None where they cannot be written."""
        at.kept += 1
        folder = at.recorder.path.with_suffix(f".{at.kept}.journal")
        try:
            return folder if at.recorder.writer.keep(folder, _PATIENCE_S) else None
        except OSError:
            return None

    def _end(self, at: _At, why: str = "") -> None:
        self._session.end(at.recorder)
        self._why = why
        self._writer = weakref.ref(at.recorder.writer)
        self._last, self._at = str(at.recorder.path), None

    def _answer(self, question: bytes) -> dict[str, Any]:
        try:
            asked = json.loads(question)
            if asked.get("key", self._key) != self._key:
                return {"pid": self._pid, "error": _ANOTHER}
            act = {
                "start": self._start,
                "stop": self._stop,
                "flush": self._flush,
                "status": self._status,
            }[asked["do"]]
            return {"pid": self._pid, **act(asked)}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return {"pid": self._pid, "error": f"not understood ({error!r}): {question[:200]!r}"}
        except Exception as error:  # noqa: BLE001 (whatever it is, the server must not see it)
            return {"pid": self._pid, "error": f"{type(error).__name__}: {error}"}

    def _start(self, asked: dict[str, Any]) -> dict[str, Any]:
        if self._at is not None:
            return {"error": f"is recording already, into {self._at.recorder.path}; stop it first"}
        plain = Config(directory=Path(asked["directory"]), run_id=str(asked["run_id"]))
        config = with_options(plain, asked["options"])
        who = {"rank": self._session.rank()}
        if left_out := self._session.why_left_out(config):
            note = f"does not record: {left_out}"
            return {"journal": None, "note": note, "left_out": left_out, **who}
        recorder = self._session.begin(config)
        self.watch(recorder, config)
        self._asked_for = self._at
        return {"journal": str(recorder.path), **who}

    def _stop(self, asked: dict[str, Any]) -> dict[str, Any]:
        if self._at is None:
            return {**self._ended(), "note": "was not recording"}
        self._end(self._at)
        return self._ended()

    def _ended(self) -> dict[str, Any]:
        """The last journal; `kept`: why it is locked, if it still is."""
        writer = self._writer()
        if writer is None or (writer.stopped and not writer.waiting_bytes):
            return {"journal": self._last}
        kept = {"waiting_bytes": writer.waiting_bytes, "disk": writer.error}
        return {"journal": self._last, "kept": kept}

    def _flush(self, asked: dict[str, Any]) -> dict[str, Any]:
        if self._at is None:
            return {**self._ended(), "note": "was not recording"}
        if self._at.config.ring_s is not None:
            kept = self._keep(self._at)
            return {"journal": None if kept is None else str(kept), "written": kept is not None}
        written = self._at.recorder.writer.flush(_PATIENCE_S)
        return {"journal": str(self._at.recorder.path), "written": written}

    def _status(self, asked: dict[str, Any]) -> dict[str, Any]:
        at = self._at
        if at is None:
            return {"recording": False, "why": self._why, **self._ended()}
        recorder, stats = at.recorder, at.recorder.stats(closed=False)
        return {
            "recording": True,
            "journal": str(recorder.path),
            "run_id": at.config.run_id,
            "choice": at.config.choice.words,
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


def _why_over(at: _At) -> str:
    """Empty: it is not."""
    writer = at.recorder.writer
    if writer.stopped and (writer.error or writer.waiting_bytes):
        why = writer.error or "the disk hangs"
        return f"{at.recorder.path} could not be written any more: {why}"
    if writer.stopped:
        return "its process ends"
    if at.recorder.ended:
        return f"its {at.config.steps} steps are over"
    if at.deadline is not None and time.monotonic() >= at.deadline:
        return f"its {at.config.seconds:g} seconds are over"
    return ""
