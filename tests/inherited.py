"""What each turn of a streaming session inherits, and how much of it was written.

Law `session` again, by counting launches.
"""

from __future__ import annotations

from dataclasses import dataclass

from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import Kind, Mode
from specdiff.replay.lift.tape import Tape, present
from specdiff.replay.lift.tape import accepted as accepted_of


@dataclass(frozen=True, slots=True)
class SavedTurn:
    """A turn that left KV to its session. Lengths are in tokens, from the start of the sequence.

    `committed`: what the session keeps. `visible`: the prompt and the returned tokens. `written`: the
    positions whose KV a launched forward wrote. `in_flight`: whether a verify was launched and its
    result had not arrived yet.
    """

    qid: int
    committed: int
    visible: int
    written: int
    in_flight: bool
    retracted: bool


@dataclass(frozen=True, slots=True)
class Inherited:
    """`length`: the number of positions that a turn takes over without computing them again."""

    qid: int
    length: int
    kept: SavedTurn


@dataclass(slots=True)
class _Written:
    """An extend writes up to its end.

    A verify that accepts `a` tokens writes the token before them and `a` - 1 drafts.
    """

    positions: int
    launched: set[int]


def kept_and_inherited(recording: Recording) -> tuple[list[SavedTurn], list[Inherited]]:
    tape = Tape.of(recording)
    accepted = accepted_of(tape)
    written: dict[int, _Written] = {}
    by_session: dict[int, SavedTurn] = {}
    kept: list[SavedTurn] = []
    inherited: list[Inherited] = []
    for kind, ref in tape:
        table = tape.events[kind]
        if kind is Kind.EXTEND:
            rows = tape.rows_of[kind]
            for row in tape.rows[kind][ref]:
                written[rows.qid[row]] = _Written(rows.seq_len[row], set())
        elif kind is Kind.LAUNCH and table.mode[ref] == Mode.DECODE:
            launch = table.launch[ref]
            for qid in tape.qids(kind, ref):
                written[qid].positions += accepted[launch, qid]
                written[qid].launched.add(launch)
        elif kind is Kind.RESULT:
            for qid in tape.qids(kind, ref):
                written[qid].launched.discard(table.launch[ref])
        elif kind is Kind.SESSION_SAVE:
            left = _left(tape, ref, written[table.qid[ref]])
            by_session.pop(table.session[ref], None)
            if left is not None:
                by_session[table.session[ref]] = left
                kept.append(left)
        elif kind is Kind.SESSION_RESTORE:
            length = min(table.key_len[ref], table.committed[ref])
            inherited.append(Inherited(table.qid[ref], length, by_session[table.session[ref]]))
    return kept, inherited


def _left(tape: Tape, ref: int, written: _Written) -> SavedTurn | None:
    saves = tape.events[Kind.SESSION_SAVE]
    committed = present(saves.committed[ref])
    if committed is None:
        return None
    finished_len = present(saves.finished_len[ref])
    returned = saves.output_len[ref] if finished_len is None else finished_len
    return SavedTurn(
        qid=saves.qid[ref],
        committed=committed,
        visible=saves.origin_len[ref] + returned,
        written=written.positions,
        in_flight=bool(written.launched),
        retracted=present(saves.reason[ref]) is None,
    )
