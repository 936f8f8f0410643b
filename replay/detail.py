"""Describe one event of a request's life in a few words, with the server's values."""

from __future__ import annotations

from ..recorders.recording import Recording
from ..recorders.schema import NONE32, NONE64, ControlAct, Kind, Mode, Reason
from ..recorders.stored_rows import StoredRows
from .decisions import chunks_of
from .tails import tails

_ARRIVALS = {
    1: "again, after a retract",
    NONE64: "earlier; it was already under way when first seen",
}


def detail(recording: Recording, kind: Kind, ref: int, row: int) -> str:
    """Describe one event. `ref` is its row in the kind's event table.

    `row` is its row in the kind's row table; if the kind has none, its row in the event table.
    """
    if kind is Kind.EXTEND:
        extends = recording.extend_rows
        return f"{extends.extend_len[row]} tokens after {extends.prefix_len[row]} cached"
    if kind is Kind.SEED:
        rows = recording.seed_rows
        where = "under way" if rows.begins[row] else "in the batch"
        return f"{where} with {rows.output_len[row]} outputs"
    if kind is Kind.LAUNCH:
        return Mode(int(recording.launches.mode[ref])).name.lower()
    if kind is Kind.RESULT:
        return _result_detail(recording, row)
    if kind is Kind.FINISH:
        return _finish_detail(recording, row)
    if kind is Kind.ABORT:
        return "while queued" if recording.aborts.queued[row] else "while running"
    if kind is Kind.ARRIVE:
        return _ARRIVALS.get(int(recording.arrives.requeued[row]), "")
    if kind in (Kind.FILTER, Kind.MERGE):
        return f"{recording.event_table(kind).num_rows[ref]} requests in the batch"
    if kind is Kind.RELEASE:
        return _released(recording, row)
    if kind in (Kind.SESSION_SAVE, Kind.SESSION_RESTORE):
        return _session_detail(recording, kind, row)
    if kind is Kind.SENT:
        return _sent_detail(recording, row)
    if kind is Kind.CONTROL:
        return _control_detail(recording, row)
    if kind is Kind.WEIGHT_SPAN:
        spans = recording.spans
        name = recording.run.weights(int(spans.weights[row]))
        return f"weights {name} are reported for tokens [{spans.start[row]}, {spans.end[row]})"
    return ""


_ACTS = {
    int(ControlAct.PAUSE): "generation is paused; running requests stay in the batch",
    int(ControlAct.PAUSE_RETRACT): "generation is paused; all running requests are retracted",
    int(ControlAct.CONTINUE): "generation continues",
    int(ControlAct.FLUSH): "the prefix cache is flushed",
}


def _control_detail(recording: Recording, row: int) -> str:
    """Describe a control message to the scheduler, which concerns every request."""
    controls, name = recording.controls, recording.run.weights
    act = int(controls.act[row])
    if act != ControlAct.WEIGHTS:
        return _ACTS.get(act, f"act {act}")
    return f"weights change from {name(int(controls.weights_before[row]))} to {name(int(controls.weights[row]))}"


def _released(recording: Recording, row: int) -> str:
    """Describe a release, with the lengths that the server had."""
    releases = recording.releases
    held, length = releases.allocated[row], releases.released_len[row]
    if held in (NONE32, NONE64):
        return "held no KV"
    return "" if length == NONE64 else f"committed {length} of {held} slots"


def _session_detail(recording: Recording, kind: Kind, row: int) -> str:
    if kind is Kind.SESSION_RESTORE:
        restores = recording.restores
        taken = min(restores.committed[row], restores.key_len[row])
        return f"inherits {taken} tokens of session {restores.session[row]}"
    kept, session = recording.saves.committed[row], recording.saves.session[row]
    return (
        f"session {session} keeps nothing"
        if kept == NONE64
        else f"session {session} keeps {kept} tokens"
    )


def _result_detail(recording: Recording, row: int) -> str:
    rows = recording.result_rows
    state = (
        "retracted"
        if rows.is_retracted[row] == 1
        else "finished"
        if rows.finished[row] == 1
        else ""
    )
    stale = f", stale: the request is {state}" if state else ""
    made = (
        f"accepts {rows.accept_len[row]}"
        if rows.accept_len[row] != NONE32
        else _prefilled(recording, row)
    )
    return f"{made}{stale}"


def _prefilled(recording: Recording, row: int) -> str:
    """Describe the result of an extend's launch."""
    chunks = chunks_of(recording)
    if tails(recording).answered[row]:
        return "one token, beside a prefill"
    if chunks.inside[row]:
        return "a chunk of the prompt, no token"
    if chunks.unsure[row]:
        return "from the prefill: one token, or none if it was a chunk (a gap hides which)"
    return "one token, from the prefill"


def _finish_detail(recording: Recording, row: int) -> str:
    finishes = recording.finishes
    reason = Reason(int(finishes.reason[row])).name.lower().replace("_", " ")
    stop = finishes.finished_len[row]
    cut = stop not in (NONE64, finishes.output_len[row])
    kept = f", {stop} of them up to the stop" if cut else ""
    rows = "".join(_held(recording, which, row) for which in ("experts", "indexer"))
    return f"{reason}: prompt {finishes.origin_len[row]}, {finishes.output_len[row]} outputs{kept}{rows}"


def _held(recording: Recording, which: str, row: int) -> str:
    """Describe the rows that the recording holds for a finish; the server may have returned more or fewer."""
    held = StoredRows(recording, which)
    name = "routed" if which == "experts" else "indexer"
    start, end = held.start[row], held.end[row]
    return f"; {name} rows [{start}, {end}) kept" if start < end else ""


def _sent_detail(recording: Recording, row: int) -> str:
    """Describe everything the client received, without the lists that it did not ask for."""
    sents = recording.sents
    lists = (
        ("log probabilities", sents.num_logprobs[row]),
        ("hidden states", sents.num_hidden_states[row]),
        ("rows", sents.experts_rows[row]),
        ("indexer rows", sents.indexer_rows[row]),
    )
    asked = ", ".join(f"{name}: {count}" for name, count in lists if count != NONE64)
    messages = sents.num_messages[row]
    times = f" in {messages} messages" if messages > 1 else ""
    return f"{sents.num_output_ids[row]} tokens{times}{asked and f' ({asked})'}"
