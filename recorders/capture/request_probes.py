"""The probes around the life of a request: arrive, retract, abort, release."""

from __future__ import annotations

from typing import Any

from ..schema import NONE64, Kind
from .probe import Probe, nothing_after, nothing_before
from .reading import int64
from .recorder import Recorder


def _arrive_before(
    recorder: Recorder, self: Any, req: Any, is_retracted: bool = False, *_: Any, **__: Any
) -> None:
    if not recorder.numbers.knows(req):
        recorder.numbers.register(req, arrives=True)  # this also emits the ARRIVE
    else:
        qid = recorder.numbers.qid(req)
        if qid >= 0:
            recorder.emit(Kind.ARRIVE, (qid, int(bool(is_retracted))))


def _lengths_before(recorder: Recorder, self: Any, *_: Any, **__: Any) -> Any:
    """Read the lengths of a request. Return None if the request is not recorded."""
    qid = recorder.numbers.qid(self)
    if qid < 0:
        return None
    access = recorder.access(self)
    lengths = (access.committed.of(self), access.allocated.of(self))
    return self, qid, lengths, len(self.output_ids)


def _retract_after(recorder: Recorder, note: Any, _: None) -> None:
    if note is None:
        return
    req, qid, (committed, allocated), output_len = note
    access = recorder.access(req)
    after = (access.committed.of(req), access.allocated.of(req))
    recorder.emit(Kind.RETRACT, (qid, committed, after[0], allocated, after[1], output_len))


def _release_before(recorder: Recorder, req: Any, *_: Any, **__: Any) -> Any:
    recorder.flush()  # emit a finish that still waits for indexer rows: no more will come
    recorder.released = NONE64
    return _lengths_before(recorder, req)


def _release_after(recorder: Recorder, note: Any, _: None) -> None:
    if note is None:
        return
    req, qid, (committed, allocated), _output_len = note
    access = recorder.access(req)
    after = (access.committed.of(req), access.allocated.of(req))
    recorder.emit(Kind.RELEASE, (qid, committed, allocated, *after, recorder.released))


def _committed_asked(recorder: Recorder, note: Any, returned: Any) -> None:
    recorder.released = int64(returned)


def _abort_before(recorder: Recorder, self: Any, recv_req: Any, *_: Any, **__: Any) -> Any:
    """Return the requests that an abort matches, and whether each is in the waiting queue.

    sglang's rule: the given rid is a prefix of the request's, or all requests are to be aborted.
    """
    everyone, prefix = bool(getattr(recv_req, "abort_all", False)), recv_req.rid
    meant = [
        (qid, req)
        for qid, req in recorder.numbers.alive()
        if qid >= 0 and (everyone or req.rid.startswith(prefix)) and not req.finished()
    ]
    waiting = {id(req) for req in getattr(self, "waiting_queue", ())}
    return self, [(qid, req, id(req) in waiting) for qid, req in meant]


def _abort_after(recorder: Recorder, note: Any, _: None) -> None:
    scheduler, meant = note
    still = {id(req) for req in getattr(scheduler, "waiting_queue", ())}
    for qid, req, waited in meant:
        recorder.emit(Kind.ABORT, (qid, int(waited and id(req) not in still)))
        if waited and id(req) not in still:
            recorder.numbers.live.pop(qid, None)


PROBES = {
    "arrive": Probe(_arrive_before, nothing_after),
    "retract": Probe(_lengths_before, _retract_after),
    "abort": Probe(_abort_before, _abort_after),
    "release": Probe(_release_before, _release_after),
    "commit-length": Probe(nothing_before, _committed_asked),
}
