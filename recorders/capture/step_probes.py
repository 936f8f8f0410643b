"""What is recorded around a step: the launch, and the result that answers it one step later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..schema import NONE32, NONE64, Kind, Mode
from ..wire import ROW_WIDTH
from .describe import with_capturers
from .probe import Probe
from .reading import batch_accepted, drafts_of, int64, mode_of, on_cpu
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
    number = recorder.numbers.batch(batch)
    if recorder.seeding.wanted:
        recorder.seeding.launched(launch, mode, number, list(batch.reqs))
    values = (
        number,
        launch,
        mode,
        sum_entry,
        int64(batch.seq_lens_sum),
        int(getattr(batch, "seq_lens_cpu", None) is None),
        len(qids),
    )
    return recorder.emit(Kind.LAUNCH, values, (qids,))


# -- a decode result: around the resolve function


def _resolve_before(recorder: Recorder, self: Any, result: Any, batch: Any, **_: Any) -> Any:
    recorder.resolved = True
    worker_stride = drafts_of(recorder.scheduler)[1]
    reqs = list(batch.reqs)
    return result, batch, reqs, worker_stride, State.of(recorder, reqs)


def _resolve_after(recorder: Recorder, note: Any, returned: Any) -> None:
    result, batch, reqs, worker_stride, state = note
    tokens = _tokens(result)
    launch = _answered(recorder, result)
    values = (
        launch,
        mode_of(batch),
        int64(getattr(result, "speculative_num_draft_tokens", None)),
        worker_stride,
        int64(getattr(result, "num_non_draft_tokens_per_req", None)),
        batch_accepted(result),
        len(tokens),
        len(reqs),
    )
    emitted = list(map(len, returned))
    accepted = result.accept_lens.tolist()
    columns = state.columns(recorder, reqs, accepted, emitted, grammars_done(recorder, reqs))
    recorder.emit(Kind.RESULT, values, columns, tokens)
    if recorder.seeding.wanted:
        runs = zip(state.qids, accepted, emitted, strict=True)
        cut = {qid: had - got for qid, had, got in runs if had > got}
        recorder.seeding.processed(recorder, launch, cut)
    recorder.step()


# -- an extend result: around the processing as a whole


def _process_before(recorder: Recorder, self: Any, batch: Any, result: Any, **_: Any) -> Any:
    recorder.resolved = False
    recorder.finished_at.clear()
    if not batch.reqs or mode_of(batch) not in (Mode.EXTEND, Mode.MIXED):
        return None
    reqs = list(batch.reqs)
    return batch, reqs, result, State.of(recorder, reqs), grammars_done(recorder, reqs)


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
    values = (launch, mode_of(batch), *(NONE64,) * 4, len(tokens), len(reqs))
    columns = state.columns(recorder, reqs, absent, absent, grammars)
    recorder.emit(Kind.RESULT, values, columns, tokens)
    if recorder.seeding.wanted:
        recorder.seeding.processed(recorder, launch)


class State(NamedTuple):
    """The requests of a result when it begins to be processed, a list per column."""

    qids: list[int]
    retracted: list[int]
    finished: list[int]
    committed: list[int]
    output_lens: list[int]

    @classmethod
    def of(cls, recorder: Recorder, reqs: list[Any]) -> State:
        """`finished()` says the same in every release: `finished_reason is not None`."""
        return cls(
            recorder.numbers.qids(reqs),
            [one.is_retracted for one in reqs],
            [one.finished_reason is not None for one in reqs],
            recorder.access(reqs[0]).committed.of_all(reqs) if reqs else [],
            [len(one.output_ids) for one in reqs],
        )

    def columns(
        self,
        recorder: Recorder,
        reqs: list[Any],
        accept: list[int],
        emitted: list[int],
        grammars: list[int],
    ) -> Sequence[list[int]]:
        """As `schema.ResultRows`, with what the requests hold now."""
        if not reqs:
            return [[]] * ROW_WIDTH[Kind.RESULT]
        read, at_finish = recorder.access(reqs[0]), recorder.finished_at
        committed = read.committed.of_all(reqs)
        if at_finish:  # a release may have reset the request since
            committed = [at_finish.get(*pair) for pair in zip(self.qids, committed, strict=True)]
        return (
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


def grammars_done(recorder: Recorder, reqs: list[Any]) -> list[int]:
    """1 where a grammar is complete, asked when sglang decides on the finish: after resolve, before an extend result."""
    if not recorder.grammars:
        return [NONE32] * len(reqs)
    return [NONE32 if one.grammar is None else int(one.grammar.is_terminated()) for one in reqs]


def _answered(recorder: Recorder, result: Any) -> int:
    launch = recorder.numbers.answered(result)
    return NONE64 if launch is None else launch


def _tokens(result: Any) -> list[int]:
    """next_token_ids, where they are on the CPU (the server has waited for that copy itself)."""
    tokens: Any = getattr(result, "next_token_ids", None)
    if not on_cpu(tokens):
        return []
    found: list[int] = (tokens if tokens.dim() == 1 else tokens.flatten()).tolist()
    return found


PROBES = {
    "launch": Probe(_launch_before, _launch_after),
    "resolve": Probe(_resolve_before, _resolve_after),
    "process": Probe(_process_before, _process_after),
}
