"""What is recorded around the functions of a `ScheduleBatch`: extend, prepare, filter, merge."""

from __future__ import annotations

from typing import Any

from ..schema import Kind
from .probe import Probe
from .reading import device_sum, draft_steps, draft_tokens, is_spec_v2
from .recorder import Recorder


def _batch_before(recorder: Recorder, self: Any, *_: Any, **__: Any) -> Any:
    return self


def _extend_after(recorder: Recorder, batch: Any, _: None) -> None:
    seq_lens = [a + b for a, b in zip(batch.prefix_lens, batch.extend_lens, strict=True)]
    follows = [_more_follows(batch, *pair) for pair in zip(batch.reqs, seq_lens, strict=True)]
    _emit_extend(recorder, batch, seq_lens, follows)


def _prebuilt_after(recorder: Recorder, batch: Any, _: None) -> None:
    """The first token is not in the KV yet; up to 0.5.11 `extend_lens` counts it all the same."""
    _emit_extend(recorder, batch, batch.seq_lens_cpu.tolist(), [False] * len(batch.reqs))


def _emit_extend(recorder: Recorder, batch: Any, seq_lens: list[int], follows: list[bool]) -> None:
    reqs = batch.reqs
    for req in reqs:
        if not recorder.numbers.knows(req):
            recorder.numbers.meet(req)
    read = recorder.access(reqs[0]) if reqs else None
    if read is None:
        return
    columns = (
        recorder.numbers.qids(reqs),
        batch.prefix_lens,
        seq_lens,
        [a - b for a, b in zip(seq_lens, batch.prefix_lens, strict=True)],
        follows,
        *read.lengths(reqs),
        [len(req.output_ids) for req in reqs],
    )
    values = (recorder.numbers.batch(batch), batch.seq_lens_sum, len(reqs))
    recorder.emit(Kind.EXTEND, values, columns)


def _more_follows(batch: Any, req: Any, seq_len: int) -> bool:
    if hasattr(batch, "chunked_req"):
        return batch.chunked_req is req
    return seq_len < len(req.origin_input_ids) + len(req.output_ids)


def _prepare_before(recorder: Recorder, self: Any, *_: Any, **__: Any) -> Any:
    if not self.reqs or not is_spec_v2(self):
        return None
    reqs = list(self.reqs)
    return self, reqs, self.seq_lens_sum, recorder.access(reqs[0]).lengths(reqs)


def _prepare_after(recorder: Recorder, note: Any, _: None) -> None:
    if note is None:
        return
    batch, reqs, sum_before, (committed, allocated) = note
    committed_after, allocated_after = recorder.access(reqs[0]).lengths(reqs)
    qids, number = recorder.numbers.qids(reqs), recorder.numbers.batch(batch)
    if recorder.seeding.wanted:
        recorder.seeding.prepared(number, reqs, committed, committed_after)
    columns = (qids, committed, committed_after, allocated, allocated_after)
    worker = getattr(recorder.scheduler, "draft_worker", None)
    values = (
        number,
        sum_before,
        batch.seq_lens_sum,
        device_sum(batch),
        draft_steps(worker),
        draft_tokens(worker),
        len(reqs),
    )
    recorder.emit(Kind.PREPARE, values, columns)


def _filter_before(recorder: Recorder, self: Any, *_: Any, **__: Any) -> Any:
    return self, len(self.reqs), self.seq_lens_sum


def _filter_after(recorder: Recorder, note: Any, _: None) -> None:
    batch, size_before, sum_before = note
    reqs = batch.reqs
    if not size_before and not reqs:  # an idle server filters nothing, over and over
        recorder.numbers.qids(reqs)  # and keeps nobody alive
        return
    values = (
        recorder.numbers.batch(batch),
        size_before,
        sum_before,
        batch.seq_lens_sum,
        device_sum(batch) if reqs else 0,
        len(reqs),
    )
    recorder.emit(Kind.FILTER, values, (recorder.numbers.qids(reqs),))


def _merge_before(recorder: Recorder, self: Any, other: Any, *_: Any, **__: Any) -> Any:
    return self, other, self.seq_lens_sum, other.seq_lens_sum


def _merge_after(recorder: Recorder, note: Any, _: None) -> None:
    batch, other, sum_before, other_sum = note
    reqs = batch.reqs
    values = (
        recorder.numbers.batch(batch),
        recorder.numbers.batch(other),
        sum_before,
        other_sum,
        batch.seq_lens_sum,
        device_sum(batch),
        len(reqs),
    )
    recorder.emit(Kind.MERGE, values, (recorder.numbers.qids(reqs),))


PROBES = {
    "extend": Probe(_batch_before, _extend_after),
    "prebuilt": Probe(_batch_before, _prebuilt_after),
    "prepare": Probe(_prepare_before, _prepare_after),
    "filter": Probe(_filter_before, _filter_after),
    "merge": Probe(_merge_before, _merge_after),
}
