"""The list of laws, and the functions that check them on a ledger."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch

from ...recorders.recording import Recording
from ...recorders.schema import Kind
from ..columns.shared import Columns
from ..ledger import Ledger
from . import committed_len, needs, room, rows, sent, sessions, statistics, sums, weights
from .lagging import lags_on_purpose
from .law import Breach, KnownViolation, Law, LawOutcome, Places, State, anywhere

LAWS = (
    Law(
        "commit",
        "after each live result, settled = prompt + outputs - 1",
        (22651, 23456, 28754),
        committed_len.commit,
        needs.LIVE,
    ),
    Law(
        "allocation",
        "allocated >= committed >= 0, and a prepare never lowers allocated",
        (23336, 27731),
        committed_len.allocation,
        needs.ALLOCATED,
    ),
    Law(
        "room",
        "a verify writes only into allocated slots",
        (23336,),
        room.room,
        needs.ROOM,
    ),
    Law(
        "rows",
        "rows = max(0, stop-aware seqlen - 1 - start_len); no routed experts unless requested",
        (24851, 26126),
        rows.rows,
        needs.FINISHED,
    ),
    Law(
        "trainer",
        "rows + requested start_len + 1 = prompt tokens + returned tokens, as sent to the client",
        (24851, 26126),
        sent.trainer,
        needs.SENT_ROWS,
    ),
    Law(
        "tokens",
        "a client receives its output tokens through the stop, each once, in order",
        (),
        sent.tokens,
        needs.SENT,
    ),
    Law(
        "returned",
        "no per-token list sent to a client is longer than its tokens",
        (20799, 22897, 26126, 28496),
        sent.returned,
        needs.SENT_LISTS,
    ),
    Law(
        "logprobs",
        "a client receives one log probability per token",
        (19801, 26510),
        sent.logprobs,
        needs.SENT_LOGPROBS,
    ),
    Law(
        "hidden-states",
        "a client receives one hidden state per token",
        (28496,),
        sent.hidden_states,
        needs.SENT_HIDDEN_STATES,
    ),
    Law(
        "weights",
        "the weights reported for each token are those that computed it",
        (27886, 35926),
        weights.weights,
        needs.WEIGHTS_TOLD,
    ),
    Law(
        "session",
        "a turn inherits only KV that was written, for tokens of its conversation",
        (22651, 22897, 28754),
        sessions.inherited,
        needs.INHERITS,
    ),
    Law(
        "stride",
        "a result is sliced with the stride recorded on it",
        (23336,),
        statistics.stride,
        needs.SLICED,
    ),
    Law(
        "stale",
        "a stale result does not change the request's books",
        (23456, 28754),
        committed_len.stale,
        needs.STALE,
    ),
    Law(
        "sums",
        "seq_lens_sum = sum(seq_lens), or None",
        (25818, 25879, 26128),
        sums.sums,
        needs.SUMMED,
        KnownViolation(
            "DFLASH plans with its own lengths there; the host's sum lags one step on purpose",
            "0.5.14 with DFLASH",
            lags_on_purpose,
        ),
    ),
    Law(
        "statistics",
        "sum(hist) = spec_verify_ct and sum(i * hist[i]) = accepted drafts",
        (23530, 23456),
        statistics.histogram,
        needs.COUNTED,
    ),
    Law(
        "batch-accepted",
        "a batch's count of accepted drafts excludes stale results",
        (23456,),
        statistics.batch_accepted,
        needs.SLICED,
        KnownViolation(
            "counted in every release; the review comment on #23456 was not taken up",
            "0.5.9 - 0.5.23",
            anywhere,
        ),
    ),
)


def check(
    columns: Columns, ledger: Ledger, silenced: Collection[str] = ()
) -> tuple[LawOutcome, ...]:
    """Check every law, in the order of `LAWS`.

    A silenced law is checked and shown, but a breach of it does not count.
    """
    return tuple(outcome_of(law, columns, ledger, silenced) for law in LAWS)


def every_breach(
    columns: Columns, ledger: Ledger, silenced: Collection[str] = ()
) -> Iterator[tuple[Law, State, Breach]]:
    """Yield each place where a law does not hold, law by law.

    The state tells whether the breach counts: broken, known violation or silenced.
    """
    for law in LAWS:
        if needs.unhooked(law.needs, columns.recording):
            continue
        places = law.check(columns, ledger)
        broken, known = _broken(law, columns, ledger, places)
        judged = State.SILENCED if law.name in silenced else State.BROKEN
        for at in torch.nonzero(broken).flatten().tolist():
            state = State.KNOWN if known[at] else judged
            yield law, state, _breach(columns.recording, places, at)


def _broken(
    law: Law, columns: Columns, ledger: Ledger, places: Places
) -> tuple[torch.Tensor, torch.Tensor]:
    """For each place, return whether the law is broken there and whether that is a known violation."""
    broken = ~places.holds
    if law.known is None or not len(broken):
        return broken, torch.zeros_like(broken)
    return broken, broken & law.known.covers(columns, ledger, places)


def outcome_of(
    law: Law, columns: Columns, ledger: Ledger, silenced: Collection[str] = ()
) -> LawOutcome:
    """Check one law on a ledger."""
    places = law.check(columns, ledger)
    unhooked = needs.unhooked(law.needs, columns.recording)
    if not len(places.event) or unhooked:
        why = unhooked or needs.why_not_exercised(law.needs, columns, ledger)
        return LawOutcome(law, State.NOT_EXERCISED, 0, 0, None, why_not_exercised=why)
    broken, known = _broken(law, columns, ledger, places)
    judged = torch.nonzero(broken & ~known).flatten()
    at = judged if len(judged) else torch.nonzero(broken).flatten()
    return LawOutcome(
        law,
        _state(law, num_judged=len(judged), num_known=int(known.sum()), silenced=silenced),
        len(places.event),
        int(broken.sum()),
        _breach(columns.recording, places, int(at[0])) if len(at) else None,
        known=law.known.reason if law.known and known.any() else None,
        left_out=needs.left_out(law.needs, columns.recording),
    )


def _state(law: Law, *, num_judged: int, num_known: int, silenced: Collection[str]) -> State:
    if num_judged:
        return State.SILENCED if law.name in silenced else State.BROKEN
    return State.KNOWN if num_known else State.HOLDS


def _breach(recording: Recording, places: Places, at: int) -> Breach:
    event, qid = int(places.event[at]), int(places.qid[at])
    return Breach(
        event=event,
        kind=Kind(int(recording.events.kind[event])),
        step=int(recording.events.iteration[event]),
        qid=qid if qid >= 0 else None,
        rid=recording.rids[qid] if qid >= 0 else None,
        counted=places.names[int(places.counted[at])],
        found=int(places.found[at]),
        low=int(places.low[at]),
        high=int(places.high[at]),
    )
