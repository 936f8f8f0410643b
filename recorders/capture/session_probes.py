"""The probes of streaming sessions: a turn gives its KV to its session, the next turn takes it over."""

from __future__ import annotations

from typing import Any

from ..schema import NONE64, Kind
from .probe import Probe
from .reading import int64, reason_of
from .recorder import Recorder


def _save_before(recorder: Recorder, self: Any, req: Any, *_: Any, **__: Any) -> Any:
    session = _streaming(req)
    if session is None:
        return None
    qid = recorder.numbers.qid(req)
    if qid < 0:
        recorder.numbers.forget_session(session)
        return None
    access = recorder.access(req)
    found = (
        qid,
        recorder.numbers.session(session),
        len(req.origin_input_ids),
        len(req.output_ids),
        int64(getattr(req, "finished_len", None)),
        reason_of(req),
        access.committed.of(req),
        access.allocated.of(req),
    )
    return self, session.session_id, found


def _save_after(recorder: Recorder, note: Any, _: Any) -> None:
    if note is not None:
        cache, session_id, found = note
        slot = cache.slots.get(session_id)
        kept = (
            (NONE64, NONE64)
            if slot is None
            else (_held(slot, "kv_committed_len"), _held(slot, "kv_allocated_len"))
        )
        recorder.emit(Kind.SESSION_SAVE, (*found, *kept))


def _restore_before(recorder: Recorder, self: Any, params: Any, *_: Any, **__: Any) -> Any:
    """Return None unless there is session KV to take over: an ordinary prefix match is no event."""
    session = _streaming(params.req)
    slot = None if session is None else self.slots.get(session.session_id)
    if slot is None or not _holds_kv(slot) or recorder.numbers.qid(params.req) < 0:
        return None
    return params.req, session, len(params.key)


def _restore_after(recorder: Recorder, note: Any, returned: Any) -> None:
    # From 0.5.11 on, None means that the request was rejected (it will be aborted) and left its session.
    if note is not None and returned is not None:
        req, session, key_len = note
        numbers, access = recorder.numbers, recorder.access(req)
        lengths = access.committed.of(req), access.allocated.of(req)
        recorder.emit(
            Kind.SESSION_RESTORE,
            (numbers.qid(req), numbers.session(session), key_len, *lengths),
        )


def _streaming(req: Any) -> Any:
    """Return the streaming session that the request is a turn of, or None."""
    session = getattr(req, "session", None)
    return session if getattr(session, "streaming", False) else None


def _held(slot: Any, name: str) -> int:
    """Read a length from the slot, or from its `kv` (allocated from 0.5.16 on, committed from 0.5.19 on)."""
    found = getattr(slot, name, None)
    return int64(getattr(getattr(slot, "kv", None), name, None) if found is None else found)


def _holds_kv(slot: Any) -> bool:
    """Whether a slot holds KV: up to 0.5.18 the slot itself says so, later its `kv`."""
    flag = getattr(slot, "is_holding_kv", None)
    return bool(getattr(getattr(slot, "kv", None), "holds_kv", False) if flag is None else flag)


PROBES = {
    "session-save": Probe(_save_before, _save_after),
    "session-restore": Probe(_restore_before, _restore_after),
}
