"""A second count of a recording's branches, event by event.

`exercised` counts the same by columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import NONE32, ROW_TABLES, ControlAct, Kind, Mode, Reason

_ACTS = {
    ControlAct.PAUSE: "paused-in-place",
    ControlAct.PAUSE_RETRACT: "paused-retracting",
    ControlAct.WEIGHTS: "weights-changed",
    ControlAct.FLUSH: "cache-flushed",
}


class Row:
    """One row of a table.

    Each attribute is the value of that column, or None if the column has none.
    """

    def __init__(self, table: Any, at: int) -> None:
        self._table, self._at = table, at

    def __getattr__(self, column: str) -> Any:
        value = int(getattr(self._table, column)[self._at])
        return None if value <= NONE32 else value


class Walk:
    """Walks the events of one recording in order. `counts`: branch -> how often it was reached."""

    def __init__(self, recording: Recording) -> None:
        self.counts = Counter[str]()
        self._recording = recording
        self._passed = Counter[Kind]()  # rows already read from each kind's row table
        self._touched: dict[int, Kind] = {}  # request -> its last event, of extend and prepare
        self._tails: set[tuple[int, int]] = set()  # (launch, request)
        self._retracted: set[int] = set()
        self._outputs = {
            int(qid): int(count)
            for qid, count in zip(
                recording.finishes.qid, recording.finishes.output_len, strict=True
            )
        }
        self._modes: list[Mode] = []
        # Whether a batch was made ready since the last result. None: none ever was.
        self._ready: bool | None = None
        for kind, ref in zip(recording.events.kind, recording.events.ref, strict=True):
            event = Row(recording.event_table(Kind(kind)), int(ref))
            getattr(self, Kind(kind).name.lower(), lambda _: None)(event)
        self._sequences()

    def _rows(self, kind: Kind, event: Row) -> Iterator[Row]:
        table, first = self._recording.row_table(kind), self._passed[kind]
        assert kind in ROW_TABLES
        self._passed[kind] += event.num_rows
        return (Row(table, first + at) for at in range(event.num_rows))

    def _count(self, **branches: bool) -> None:
        self.counts.update(name.strip("_").replace("_", "-") for name, so in branches.items() if so)

    def extend(self, event: Row) -> None:
        self._ready = True
        for row in self._rows(Kind.EXTEND, event):
            self._touched[row.qid] = Kind.EXTEND
            self._count(chunked_prefill=row.chunked == 1, re_prefill=row.qid in self._retracted)

    def prepare(self, event: Row) -> None:
        self._ready = True
        for row in self._rows(Kind.PREPARE, event):
            self._touched[row.qid] = Kind.PREPARE

    def launch(self, event: Row) -> None:
        mode = Mode(event.mode)
        self._modes.append(mode)
        self.counts[f"launch-{mode.name.lower()}"] += 1
        self._count(overlap_skipped=self._ready is False)
        for row in self._rows(Kind.LAUNCH, event):
            prepared = self._touched.get(row.qid) is Kind.PREPARE
            if mode in (Mode.EXTEND, Mode.MIXED) and prepared:
                self._tails.add((event.launch, row.qid))

    def result(self, event: Row) -> None:
        self._ready = None if self._ready is None else False
        rows = list(self._rows(Kind.RESULT, event))
        for row in rows:
            self._result_row(event, row)
        drafts = any(row.accept_len is not None for row in rows) and event.worker_stride is not None
        width = event.num_tokens // max(event.num_rows, 1)
        self._count(
            result_unpaired=event.launch is None,
            draft_length_changed=drafts and width not in (0, event.worker_stride),
        )

    def _result_row(self, event: Row, row: Row) -> None:
        retracted, finished = row.is_retracted == 1, row.finished == 1
        self._count(grammar_done=row.grammar_done == 1)
        if row.accept_len is not None:
            state = "stale-retracted" if retracted else "stale-finished" if finished else ""
            many = "1" if row.accept_len == 1 else "many"
            self.counts[f"{state}-{many}" if state else "live-result"] += 1
            self._count(grammar_cut=row.num_emitted < row.accept_len)
        elif (event.launch, row.qid) in self._tails:
            stale, last = retracted or finished, self._outputs.get(row.qid) == row.output_len + 1
            self.counts["tail-stale" if stale else "tail-ends" if last else "tail"] += 1

    def filter(self, event: Row) -> None:
        left, before = event.num_rows, event.size_before
        self._count(filter_early_return=left in (0, before), filter=left not in (0, before))
        self._count(batch_emptied=left == 0 < before)

    def merge(self, _: Row) -> None:
        self._count(merge=True)

    def gap(self, _: Row) -> None:
        self._count(gap=True)
        self._touched.clear()

    def retract(self, event: Row) -> None:
        self._count(retract=True)
        self._retracted.add(event.qid)

    def abort(self, event: Row) -> None:
        self._count(abort_queued=event.queued == 1, abort_running=event.queued == 0)

    def release(self, event: Row) -> None:
        if event.allocated is not None:
            trimmed = event.released_len is not None and event.released_len < event.committed
            self._count(release=True, release_trimmed=trimmed)
            self._count(release_overallocated=event.allocated - event.committed > 0)

    def finish(self, event: Row) -> None:
        reason, asked = Reason(event.reason), event.return_routed_experts == 1
        over = event.finished_len is not None and event.output_len - event.finished_len > 0
        self._count(finish=True, cached_prefix=event.cached_tokens > 0)
        self.counts[f"finish-{reason.name.lower().replace('_', '-')}"] += 1
        self._count(length_overshoot=over and reason is Reason.LENGTH)
        self._count(stop_mid_run=over and reason in (Reason.STOP_TOKEN, Reason.STOP_STRING))
        if event.experts_state is not None:
            self._count(rows_requested=asked, rows_not_requested=not asked)
            self._count(
                rows_overshoot=asked and over, start_len=asked and (event.start_len or 0) > 0
            )

    def session_save(self, event: Row) -> None:
        kept = event.committed is not None
        self._count(turn_kept=kept, turn_trimmed=kept and event.committed_before > event.committed)
        self._count(turn_aborted=event.reason == Reason.ABORT, turn_retracted=event.reason is None)

    def session_restore(self, event: Row) -> None:
        self._count(turn_inherits=event.committed is not None)

    def control(self, event: Row) -> None:
        if event.act in _ACTS:
            self.counts[_ACTS[ControlAct(event.act)]] += 1

    def _sequences(self) -> None:
        awake = [mode for mode in self._modes if mode is not Mode.IDLE]
        for at, mode in enumerate(self._modes):
            if mode is Mode.IDLE:
                passed = sum(one is not Mode.IDLE for one in self._modes[:at])
                self._count(launch_idle_amid_decodes=awake[passed : passed + 1] == [Mode.DECODE])
        pairs = list(pairwise(self._modes))
        decode, extend = Mode.DECODE, Mode.EXTEND
        between = pairwise(pairs)
        found = sum(pair == ((decode, extend), (extend, decode)) for pair in between)
        self.counts["prefill-between-decodes"] += found
