"""Start and stop on a running server: a Unix socket of this process, for its own user only (standard library only).

A line of JSON asks (`{"do": "status"}`), a line answers. `do`: start (`directory`, `run_id`, `options` as `config.Config` has
them), stop, flush, status. What cannot be done is answered with `error`; nothing is ever raised into the server.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import socket
import struct
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime import RUNTIME, is_dead, socket_of
from .config import Config, with_options
from .descriptor import OurSocket
from .online import Heed

if TYPE_CHECKING:
    from .recorder import Recorder
    from .session import Session
    from .writer import JournalWriter

logger = logging.getLogger("specdiff")

_EVERY_S = 0.1  # how often limits are looked at
_PATIENCE_S = 5.0  # for who asks, and for the disk
_LONGEST = 1 << 16  # bytes of a question


@dataclass(slots=True)
class _At:
    """The recorder at work, and when it is to end."""

    recorder: Recorder
    config: Config
    deadline: float | None
    heed: Heed
    kept: int = 0  # how often the ring was


class Control:
    """The thread that answers, and that ends what has reached its limit."""

    def __init__(self, session: Session) -> None:
        self._session, self._pid = session, os.getpid()
        self._at: _At | None = None
        # The journal that was ended last, and its writer while that lives.
        self._last: str | None = None
        self._why = ""  # it ended, where nobody asked for that
        self._writer: Callable[[], JournalWriter | None] = lambda: None
        self._door = _listen()
        self._thread = threading.Thread(target=self._run, name="specdiff-control", daemon=True)
        self._thread.start()

    def watch(self, recorder: Recorder, config: Config) -> None:
        deadline = None if config.seconds is None else time.monotonic() + config.seconds
        self._at = _At(recorder, config, deadline, Heed(config.ring_s or 0))

    def _run(self) -> None:
        while True:
            with contextlib.suppress(Exception):  # it is tried again
                self._end_what_is_over()
            with contextlib.suppress(OSError):
                self._answer_one()

    def _answer_one(self) -> None:
        asking = self._who_asks()
        if asking is None:
            return
        with contextlib.closing(OurSocket(asking)) as ours:
            asking.settimeout(_PATIENCE_S)
            if _is_same_user(asking):
                answer = json.dumps(self._answer(_line(asking))).encode() + b"\n"
                if ours.is_ours():  # a stop takes seconds on a disk that refuses
                    asking.sendall(answer)

    def _who_asks(self) -> socket.socket | None:
        """None where nobody does for a while."""
        if self._door is not None and not self._door.is_ours():
            self._door.close()
            self._door = None
            logger.warning(
                "specdiff: the server has closed the socket of process %d: it cannot be asked any more (`record --attach`). "
                "The server goes on.",
                self._pid,
            )
        if self._door is not None:
            try:
                return self._door.made.accept()[0]
            except TimeoutError:
                return None
            except OSError:  # no descriptor is left, say: who asks waits, and so do we
                pass
        time.sleep(_EVERY_S)
        return None

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
        quiet_s = at.heed.asks(breach, time.monotonic())
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
    if writer.stopped:
        return (
            f"{at.recorder.path} could not be written any more: {writer.error or 'the disk hangs'}"
        )
    if at.recorder.ended:
        return f"its {at.config.steps} steps are over"
    if at.deadline is not None and time.monotonic() >= at.deadline:
        return f"its {at.config.seconds:g} seconds are over"
    return ""


def _listen() -> OurSocket | None:
    """None where there can be no socket: the log says so, and recording goes on as it was asked for."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path = socket_of(os.getpid())
        if path.exists() and not is_dead(path):
            raise OSError(
                f"{path} is of process {os.getpid()} of another PID namespace. Set {RUNTIME} to another folder in one of them"
            )
        scratch = path.with_suffix(".new")
        scratch.unlink(missing_ok=True)
        made.bind(str(scratch))
        scratch.chmod(0o600)
        made.listen(8)
        made.settimeout(_EVERY_S)
        scratch.replace(path)  # who finds it there finds it listening; a dead process's goes
    except OSError as error:
        made.close()
        logger.warning("specdiff: no `record --attach` to process %d: %s", os.getpid(), error)
        return None
    atexit.register(_leave, path, os.getpid())
    door = OurSocket(made)
    os.register_at_fork(after_in_child=door.close)
    return door


def _leave(path: Path, pid: int) -> None:
    """A fork that ends leaves its parent's socket where it is."""
    if os.getpid() == pid:
        path.unlink(missing_ok=True)


def _is_same_user(asking: socket.socket) -> bool:
    """The folder and the socket keep others out; this is the second lock on the same door."""
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return uid in (os.geteuid(), 0)


def _line(asking: socket.socket) -> bytes:
    found = b""
    while not found.endswith(b"\n") and len(found) < _LONGEST:
        more = asking.recv(_LONGEST)
        if not more:
            break
        found += more
    return found
