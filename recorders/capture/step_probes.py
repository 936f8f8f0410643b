"""The probes around a step: the launch, and its result, which is processed one step later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..schema import NONE32, NONE64, Kind, Mode
from ..wire import ROW_WIDTH
from .describe import with_capturers
from .numbering import Picked
from .probe import Probe
from .reading import batch_accepted, draft_tokens, mode_of, on_cpu
from .recorder import Recorder
from .seed_event import emit_seed

_ANSWERED = (Mode.EXTEND, Mode.DECODE, Mode.MIXED)
_EXTENDING = (Mode.EXTEND, Mode.MIXED)


def _launch_before(recorder: Recorder, self: Any, batch: Any, *_: Any, **__: Any) -> Any:
    try:
        return batch, mode_of(batch), batch.seq_lens_sum, recorder.numbers.pick(batch.reqs)
    except Exception as error:  # noqa: BLE001 (number the launch, so that its result is recognized)
        recorder.lost(error)
        return None


def _launch_after(recorder: Recorder, note: Any, result: Any) -> None:
    answerable = note is not None and note[1] in _ANSWERED
    picked = note[3] if note is not None else None
    launch, emitted = recorder.numbers.launch(result, answerable, picked), False
    try:
        emitted = note is not None and _emit_launch(recorder, launch, note)
    finally:
        if not emitted:
            recorder.numbers.mark_lost(launch)


def _emit_launch(recorder: Recorder, launch: int, note: Any) -> bool:
    batch, mode, sum_entry, picked = note
    if launch == 0:
        recorder.correct(with_capturers(recorder.run))
    number = recorder.numbers.batch(batch)
    if recorder.seeding.wanted:
        recorder.seeding.launched(launch, mode, number, picked.reqs)
    if picked.none_recorded:
        return False
    values = (
        number,
        launch,
        mode,
        sum_entry,
        batch.seq_lens_sum,
        int(getattr(batch, "seq_lens_cpu", None) is None),
        len(picked.qids),
    )
    return recorder.emit(Kind.LAUNCH, values, (picked.qids,))


# -- a decode result: around the resolve function


def _resolve_before(recorder: Recorder, self: Any, result: Any, batch: Any, **_: Any) -> Any:
    recorder.resolved = True
    picked = recorder.numbers.pick(batch.reqs)
    worker_stride = draft_tokens(getattr(recorder.scheduler, "draft_worker", None))
    return result, batch, picked, worker_stride, _state(recorder, picked)


def _resolve_after(recorder: Recorder, note: Any, returned: Any) -> None:
    result, batch, picked, worker_stride, state = note
    launch = recorder.numbers.answered(result)
    accepted: Sequence[int] = ()
    emitted: Sequence[int] = ()
    if not picked.none_recorded:
        tokens = picked.runs(_tokens(result))
        values = (
            launch,
            mode_of(batch),
            getattr(result, "speculative_num_draft_tokens", None),
            worker_stride,
            getattr(result, "num_non_draft_tokens_per_req", None),
            batch_accepted(result),
            len(tokens),
            len(picked.qids),
        )
        accepted = picked.of(result.accept_lens.tolist())
        emitted = list(map(len, picked.of(returned)))
        grammars = grammars_done(recorder, picked.reqs)
        columns = _columns(recorder, picked, state, accepted, emitted, grammars)
        recorder.emit(Kind.RESULT, values, columns, tokens)
    if recorder.seeding.wanted:
        runs = zip(picked.qids, accepted, emitted, strict=True)
        cut = {qid: had - got for qid, had, got in runs if had > got}
        emit_seed(recorder, launch, cut)


# -- an extend result: around the processing as a whole


def _process_before(recorder: Recorder, self: Any, batch: Any, result: Any, **_: Any) -> Any:
    recorder.begin_turn()
    recorder.resolved = recorder.extended = False
    recorder.finished_at.clear()
    if not batch.reqs or mode_of(batch) not in _EXTENDING:
        return None
    recorder.extended = True
    picked = recorder.numbers.pick(batch.reqs)
    return batch, picked, result, _state(recorder, picked), grammars_done(recorder, picked.reqs)


def _process_after(recorder: Recorder, note: Any, _: None) -> None:
    # If recording ended meanwhile, the finish probes did not run, and lengths may have been reset.
    if note is not None and not recorder.resolved and not recorder.ended:
        _extend_result(recorder, *note)
    recorder.writer.commit()


def _extend_result(
    recorder: Recorder, batch: Any, picked: Picked, result: Any, state: Any, grammars: list[int]
) -> None:
    recorder.flush()  # a pending finish of this result then enters its length in `finished_at`
    launch = recorder.numbers.answered(result)
    if not picked.none_recorded:
        absent = [NONE32] * len(picked.qids)
        tokens = picked.runs(_tokens(result))
        values = (launch, mode_of(batch), *(NONE64,) * 4, len(tokens), len(picked.qids))
        columns = _columns(recorder, picked, state, absent, absent, grammars)
        recorder.emit(Kind.RESULT, values, columns, tokens)
    if recorder.seeding.wanted:
        emit_seed(recorder, launch)


def _state(recorder: Recorder, picked: Picked) -> Sequence[list[int]]:
    """Return the state of a result's requests before it is processed, one list per column."""
    reqs = picked.reqs
    return recorder.access(reqs[0]).before_result(reqs) if reqs else ([],) * 4


def _columns(
    recorder: Recorder,
    picked: Picked,
    state: Sequence[list[int]],
    accept: Sequence[int],
    emitted: Sequence[int],
    grammars: list[int],
) -> Sequence[Sequence[int]]:
    """Return the columns of `schema.ResultRows`; values "after" are read from the requests now."""
    reqs, qids = picked.reqs, picked.qids
    if not reqs:
        return [[]] * ROW_WIDTH[Kind.RESULT]
    retracted, finished, committed_before, output_lens = state
    committed, verify_ct, accepted = recorder.access(reqs[0]).after_result(reqs)
    at_finish = recorder.finished_at
    if at_finish:  # a release may have reset the length of a request that finished
        committed = [at_finish.get(*pair) for pair in zip(qids, committed, strict=True)]
    return (
        qids,
        accept,
        emitted,
        retracted,
        finished,
        committed_before,
        committed,
        output_lens,
        verify_ct,
        accepted,
        grammars,
    )


def grammars_done(recorder: Recorder, reqs: list[Any]) -> list[int]:
    """Return 1 for each request whose grammar is complete, absent if it has none.

    It is read when sglang decides on the finish: for a decode after the resolve function, for an
    extend before its result is processed.
    """
    if not recorder.grammars:
        return [NONE32] * len(reqs)
    return [NONE32 if one.grammar is None else int(one.grammar.is_terminated()) for one in reqs]


def _tokens(result: Any) -> list[int]:
    """Return next_token_ids if they are on the CPU; the server itself has waited for that copy."""
    tokens: Any = getattr(result, "next_token_ids", None)
    if not on_cpu(tokens):
        return []
    found: list[int] = (tokens if tokens.dim() == 1 else tokens.flatten()).tolist()
    return found


PROBES = {
    "launch": Probe(_launch_before, _launch_after),
    "resolve": Probe(_resolve_before, _resolve_after),
    "process": Probe(_process_before, _process_after, ends_turn=True),
}
