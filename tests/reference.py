"""A second engine for the committed lengths, to check the column engine against.

It goes one event at a time and is as plain as possible.

Written from the table of eras alone, without the slots of `replay.paths`, so that a mistake in
either one shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from specdiff.recorders.recording import Recording, row_starts
from specdiff.recorders.schema import NONE32, NONE64, Kind, Mode
from specdiff.replay.decisions import GOES_ON, LOST, decisions

Key = tuple[int, int, str]  # event, qid, "before" or "after"


@dataclass
class _Request:
    committed: int | None = None  # None: not seen from its extend on
    incarnation: int = 0
    prepared: tuple[int, int] | None = None  # (incarnation, claim) of the last prepare
    last: Kind | None = None  # the later of its last extend and its last prepare
    claims: int = 0
    fresh: bool = False
    seen: bool = False
    verify_ct: int = 0
    accepted: int = 0


@dataclass
class ReferenceLedger:
    raw: dict[Key, int] = field(default_factory=dict)
    settled: dict[Key, int] = field(default_factory=dict)
    verify_ct: dict[Key, int] = field(default_factory=dict)
    accepted: dict[Key, int] = field(default_factory=dict)


def reference_ledger(recording: Recording, fixes: frozenset[int]) -> ReferenceLedger:
    made = ReferenceLedger()
    requests = [_Request() for _ in recording.rids]
    claim = 1 if 22651 in fixes else 0
    launched: dict[tuple[int, int], tuple[int, int] | None] = {}  # (launch, qid) -> its prepare
    # (launch, qid): prepared for a decode, but in the launch of an extend.
    tails: set[tuple[int, int]] = set()
    decided = decisions(recording)
    finishes = dict(zip(decided.row.tolist(), decided.finish.tolist(), strict=True))
    for event, kind, ref in _spine(recording):
        if kind is Kind.EXTEND:
            for row in _rows(recording, kind, ref):
                request = requests[recording.extend_rows.qid[row]]
                request.committed, request.claims = int(recording.extend_rows.seq_len[row]), 0
                request.incarnation += 1
                if not request.seen:
                    request.fresh = bool(recording.extend_rows.output_len[row] == 0)
                request.prepared, request.seen, request.last = None, True, kind
        elif kind is Kind.SEED:
            for row in _rows(recording, kind, ref):
                if recording.seed_rows.begins[row] == 1:
                    request = requests[recording.seed_rows.qid[row]]
                    request.committed, request.claims = int(recording.seed_rows.seq_len[row]), 0
                    request.incarnation += 1
                    request.prepared, request.seen = None, True
        elif kind is Kind.RETRACT:
            request = requests[recording.retracts.qid[ref]]
            request.committed = 0
            request.claims, request.seen = 0, True
            request.incarnation += 1
            request.prepared = None
        elif kind is Kind.SESSION_SAVE:
            request = requests[recording.saves.qid[ref]]
            request.committed, request.seen = None, True
        elif kind is Kind.GAP:
            for request in requests:
                request.committed, request.fresh, request.last = None, False, None
        elif kind is Kind.PREPARE:
            for row in _rows(recording, kind, ref):
                qid = int(recording.prepare_rows.qid[row])
                _note(made, event, qid, "before", requests[qid])
                _prepare(requests[qid], claim)
                requests[qid].last = kind
                _note(made, event, qid, "after", requests[qid])
        elif kind is Kind.LAUNCH:
            for row in _rows(recording, kind, ref):
                qid = int(recording.launch_rows.qid[row])
                key = int(recording.launches.launch[ref]), qid
                launched[key] = requests[qid].prepared
                if (
                    recording.launches.mode[ref] != Mode.DECODE
                    and requests[qid].last is Kind.PREPARE
                ):
                    tails.add(key)
        elif kind is Kind.RESULT:
            for row in _rows(recording, kind, ref):
                qid = int(recording.result_rows.qid[row])
                tail = (int(recording.results.launch[ref]), qid) in tails
                prefill = recording.result_rows.accept_len[row] == NONE32
                if prefill and not tail:
                    continue
                if prefill and finishes.get(row) == LOST:
                    requests[qid].committed, requests[qid].seen = None, True
                    continue
                _note(made, event, qid, "before", requests[qid])
                if prefill:
                    goes_on = finishes.get(row) == GOES_ON
                    _tail(recording, ref, row, requests[qid], goes_on, claim, launched)
                else:
                    _result(recording, ref, row, requests[qid], fixes, launched)
                _note(made, event, qid, "after", requests[qid])
                if requests[qid].fresh:
                    made.verify_ct[event, qid, "after"] = requests[qid].verify_ct
                    made.accepted[event, qid, "after"] = requests[qid].accepted
    return made


def _prepare(request: _Request, claim: int) -> None:
    request.seen = True
    request.claims += claim
    request.prepared = (request.incarnation, claim)
    if request.committed is not None:
        request.committed += claim


def _result(
    recording: Recording,
    ref: int,
    row: int,
    request: _Request,
    fixes: frozenset[int],
    launched: dict[tuple[int, int], tuple[int, int] | None],
) -> None:
    rows = recording.result_rows
    accepted, retracted, finished = (
        int(rows.accept_len[row]),
        rows.is_retracted[row] == 1,
        rows.finished[row] == 1,
    )
    live = not retracted and not finished
    request.seen = True
    pre_claim = 22651 in fixes
    if live or 23456 not in fixes:
        emitted = int(rows.num_emitted[row]) if live else accepted
        change = emitted - 1 if pre_claim else emitted
        bonus = (
            1
            if recording.results.num_non_draft[ref] == NONE64
            else int(recording.results.num_non_draft[ref])
        )
        request.verify_ct += 1
        request.accepted += accepted - bonus
    else:
        change = -1 if pre_claim and finished and not retracted else 0
    if request.committed is not None:
        request.committed += change
    prepared = launched.get((int(recording.results.launch[ref]), int(rows.qid[row])))
    if prepared is not None and prepared[0] == request.incarnation:
        request.claims -= prepared[1]


def _tail(
    recording: Recording,
    ref: int,
    row: int,
    request: _Request,
    goes_on: bool,
    claim: int,
    launched: dict[tuple[int, int], tuple[int, int] | None],
) -> None:
    rows = recording.result_rows
    request.seen = True
    if request.committed is not None and rows.is_retracted[row] != 1:
        request.committed += int(goes_on) - claim
    prepared = launched.get((int(recording.results.launch[ref]), int(rows.qid[row])))
    if prepared is not None and prepared[0] == request.incarnation:
        request.claims -= prepared[1]


def _note(made: ReferenceLedger, event: int, qid: int, moment: str, request: _Request) -> None:
    if request.committed is not None:
        made.raw[event, qid, moment] = request.committed
        made.settled[event, qid, moment] = request.committed - request.claims


def _spine(recording: Recording) -> Iterator[tuple[int, Kind, int]]:
    pairs = zip(recording.events.kind.tolist(), recording.events.ref.tolist(), strict=True)
    for event, (kind, ref) in enumerate(pairs):
        yield event, Kind(kind), ref


def _rows(recording: Recording, kind: Kind, ref: int) -> range:
    counts = recording.event_table(kind).num_rows
    start = int(row_starts(counts)[ref])
    return range(start, start + int(counts[ref]))
