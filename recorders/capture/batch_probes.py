"""The probes around the functions of a `ScheduleBatch`: extend, prepare, filter, merge."""

from __future__ import annotations

from typing import Any

from ..schema import NONE64, Kind
from .numbering import Picked
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
    """Use `seq_lens_cpu`: up to 0.5.11, `extend_lens` includes the first token, which has no KV yet."""
    _emit_extend(recorder, batch, batch.seq_lens_cpu.tolist(), [False] * len(batch.reqs))


def _emit_extend(recorder: Recorder, batch: Any, seq_lens: list[int], follows: list[bool]) -> None:
    for req in batch.reqs:
        if not recorder.numbers.knows(req):
            recorder.numbers.register(req)
    picked = recorder.numbers.pick(batch.reqs)
    reqs = picked.reqs
    if not reqs:
        return
    extends = [a - b for a, b in zip(seq_lens, batch.prefix_lens, strict=True)]
    columns = (
        picked.qids,
        *map(picked.of, (batch.prefix_lens, seq_lens, extends, follows)),
        *recorder.access(reqs[0]).lengths(reqs),
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
    picked = recorder.numbers.pick(self.reqs)
    if picked.none_recorded:
        return None
    read = recorder.access(picked.reqs[0]).lengths
    return self, picked, self.seq_lens_sum, read(picked.reqs)


def _prepare_after(recorder: Recorder, note: Any, _: None) -> None:
    if note is None:
        return
    batch, picked, sum_before, (committed, allocated) = note
    reqs, number = picked.reqs, recorder.numbers.batch(batch)
    committed_after, allocated_after = recorder.access(reqs[0]).lengths(reqs)
    if recorder.seeding.wanted:
        recorder.seeding.prepared(number, reqs, committed, committed_after)
    columns = (picked.qids, committed, committed_after, allocated, allocated_after)
    worker = getattr(recorder.scheduler, "draft_worker", None)
    values = (
        number,
        sum_before,
        batch.seq_lens_sum,
        _sum_of(picked, batch),
        draft_steps(worker),
        draft_tokens(worker),
        len(reqs),
    )
    recorder.emit(Kind.PREPARE, values, columns)


def _filter_before(recorder: Recorder, self: Any, *_: Any, **__: Any) -> Any:
    return self, recorder.numbers.count(self.reqs), self.seq_lens_sum


def _filter_after(recorder: Recorder, note: Any, _: None) -> None:
    batch, size_before, sum_before = note
    # For an empty batch, this also forgets the requests of earlier batches.
    picked = recorder.numbers.pick(batch.reqs)
    if not size_before and not picked.qids:  # an idle server filters its empty batch all the time
        return
    values = (
        recorder.numbers.batch(batch),
        size_before,
        sum_before,
        batch.seq_lens_sum,
        _sum_of(picked, batch) if picked.size else 0,
        len(picked.qids),
    )
    recorder.emit(Kind.FILTER, values, (picked.qids,))


def _sum_of(picked: Picked, batch: Any) -> int:
    """Return the device sum; absent if the batch has unrecorded requests, as it is not compared then."""
    return device_sum(batch) if picked.at is None else NONE64


def _merge_before(recorder: Recorder, self: Any, other: Any, *_: Any, **__: Any) -> Any:
    count = recorder.numbers.count
    if other.reqs and not count(other.reqs):  # nothing happens to recorded requests
        return None
    of_others = bool(self.reqs) and not count(self.reqs)
    return self, other, self.seq_lens_sum, other.seq_lens_sum, of_others


def _merge_after(recorder: Recorder, note: Any, _: None) -> None:
    if note is None:
        return
    batch, other, sum_before, other_sum, of_others = note
    if of_others:
        recorder.numbers.renumber(batch)
    picked = recorder.numbers.pick(batch.reqs)
    values = (
        recorder.numbers.batch(batch),
        recorder.numbers.batch(other),
        sum_before,
        other_sum,
        batch.seq_lens_sum,
        _sum_of(picked, batch),
        len(picked.qids),
    )
    recorder.emit(Kind.MERGE, values, (picked.qids,))


PROBES = {
    "extend": Probe(_batch_before, _extend_after),
    "prebuilt": Probe(_batch_before, _prebuilt_after),
    "prepare": Probe(_prepare_before, _prepare_after),
    "filter": Probe(_filter_before, _filter_after),
    "merge": Probe(_merge_before, _merge_after),
}
