"""What is recorded around a step: the launch, and the result that answers it one step later."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

from ..schema import NONE32, NONE64, Kind, Mode
from .describe import with_capturers
from .probe import Probe
from .reading import batch_accepted, by_row, drafts_of, int64, mode_of, on_cpu
from .recorder import Recorder

_ANSWERED = (Mode.EXTEND, Mode.DECODE, Mode.MIXED)


def _launch_before(recorder: Recorder, self: Any, batch: Any, *_: Any, **__: Any) -> Any:
    try:
        qids = recorder.numbers.qids(batch.reqs)
        return batch, mode_of(batch), int64(batch.seq_lens_sum), qids
    except Exception as error:  # noqa: BLE001 (its result must still be told from the others')
        recorder.lost(error)
        return None


def _launch_after(recorder: Recorder, note: Any, result: Any) -> None:
    answerable = note is not None and note[1] in _ANSWERED
    launch, emitted = recorder.numbers.launch(result, answerable), False
    try:
        emitted = note is not None and _emit_launch(recorder, launch, note)
    finally:
        if not emitted:
            recorder.numbers.lose(launch)


def _emit_launch(recorder: Recorder, launch: int, note: Any) -> bool:
    batch, mode, sum_entry, qids = note
    if launch == 0:
        recorder.correct(with_capturers(recorder.run))
    values = (
        recorder.numbers.batch(batch),
        launch,
        mode,
        sum_entry,
        int64(batch.seq_lens_sum),
        int(getattr(batch, "seq_lens_cpu", None) is None),
        len(qids),
    )
    return recorder.emit(Kind.LAUNCH, values, qids)


# -- a decode result: around the resolve function


def _resolve_before(recorder: Recorder, self: Any, result: Any, batch: Any, **_: Any) -> Any:
    recorder.resolved = True
    worker_stride = drafts_of(recorder.scheduler)[1]
    reqs = list(batch.reqs)
    return result, batch, reqs, worker_stride, State.of(recorder, reqs)


def _resolve_after(recorder: Recorder, note: Any, returned: Any) -> None:
    result, batch, reqs, worker_stride, state = note
    tokens = _tokens(result)
    values = (
        _answered(recorder, result),
        mode_of(batch),
        int64(getattr(result, "speculative_num_draft_tokens", None)),
        worker_stride,
        int64(getattr(result, "num_non_draft_tokens_per_req", None)),
        batch_accepted(result),
        len(tokens) // 4,
        len(reqs),
    )
    emitted = list(map(len, returned))
    rows = state.rows(recorder, reqs, result.accept_lens.tolist(), emitted, grammars_done(reqs))
    recorder.emit(Kind.RESULT, values, rows, tokens)
    recorder.overhead.step()


# -- an extend result: around the processing as a whole


def _process_before(recorder: Recorder, self: Any, batch: Any, result: Any, **_: Any) -> Any:
    recorder.resolved = False
    recorder.finished_at.clear()
    if not batch.reqs or mode_of(batch) not in (Mode.EXTEND, Mode.MIXED):
        return None
    reqs = list(batch.reqs)
    return batch, reqs, result, State.of(recorder, reqs), grammars_done(reqs)


def _process_after(recorder: Recorder, note: Any, _: None) -> None:
    _extend_result(recorder, note)
    recorder.writer.commit()


def _extend_result(recorder: Recorder, note: Any) -> None:
    if note is None or recorder.resolved:
        return
    batch, reqs, result, state, grammars = note
    recorder.flush()  # a finish of this result has then left its mark in `finished_at`
    absent = [NONE32] * len(reqs)
    tokens = _tokens(result)
    launch = _answered(recorder, result)
    values = (launch, mode_of(batch), *(NONE64,) * 4, len(tokens) // 4, len(reqs))
    rows = state.rows(recorder, reqs, absent, absent, grammars)
    recorder.emit(Kind.RESULT, values, rows, tokens)


@dataclass(frozen=True, slots=True)
class State:
    """The requests of a result when it begins to be processed, a list per column."""

    qids: list[int]
    retracted: list[int]
    finished: list[int]
    committed: list[int]
    output_lens: list[int]

    @classmethod
    def of(cls, recorder: Recorder, reqs: list[Any]) -> State:
        return cls(
            qids=recorder.numbers.qids(reqs),
            retracted=[1 if req.is_retracted else 0 for req in reqs],
            finished=[1 if req.finished() else 0 for req in reqs],
            committed=recorder.access(reqs[0]).committed.of_all(reqs) if reqs else [],
            output_lens=[len(req.output_ids) for req in reqs],
        )

    def rows(
        self,
        recorder: Recorder,
        reqs: list[Any],
        accept: list[int],
        emitted: list[int],
        grammars: list[int],
    ) -> list[int]:
        """As `schema.ResultRows`, with what the requests hold now."""
        if not reqs:
            return []
        read, at_finish = recorder.access(reqs[0]), recorder.finished_at
        committed = read.committed.of_all(reqs)
        if at_finish:  # a release may have reset the request since
            committed = [at_finish.get(*pair) for pair in zip(self.qids, committed, strict=True)]
        return by_row(
            (
                self.qids,
                accept,
                emitted,
                self.retracted,
                self.finished,
                self.committed,
                committed,
                self.output_lens,
                read.verify_ct.of_all(reqs),
                read.accepted.of_all(reqs),
                grammars,
            )
        )


def grammars_done(reqs: list[Any]) -> list[int]:
    """1 where a grammar is complete, asked when sglang decides on the finish: after resolve, before an extend result."""
    grammars = [req.grammar for req in reqs]
    return [NONE32 if one is None else int(one.is_terminated()) for one in grammars]


def _answered(recorder: Recorder, result: Any) -> int:
    launch = recorder.numbers.answered(result)
    return NONE64 if launch is None else launch


def _tokens(result: Any) -> bytes:
    """next_token_ids as int32, where they are on the CPU (the server has waited for that copy itself)."""
    tokens = getattr(result, "next_token_ids", None)
    if tokens is None or not on_cpu(tokens):
        return b""
    flat = tokens if tokens.dim() == 1 else tokens.flatten()
    return array("i", flat.tolist()).tobytes()


PROBES = {
    "launch": Probe(_launch_before, _launch_after),
    "resolve": Probe(_resolve_before, _resolve_after),
    "process": Probe(_process_before, _process_after),
}
