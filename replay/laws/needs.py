"""What each law needs to be checked, and the reason to report if that is missing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...recorders.recording import Recording
from ...recorders.schema import NONE32, NONE64, Mode
from ..columns.shared import Columns
from ..held import holds, holds_quantity, not_in
from ..ledger import Ledger
from ..quantity import Quantity
from .law import Needs

_LENGTH, _SETTLED = Quantity.KV_COMMITTED_LEN, Quantity.KV_COMMITTED_LEN_SETTLED
_COUNTERS = (Quantity.SPEC_VERIFY_CT, Quantity.SPEC_ACCEPTED_DRAFTS)


def unhooked(needs: Needs, recording: Recording) -> str | None:
    """Return why a law cannot be checked in full, or None.

    For example, a function that must be hooked has another name in that sglang.
    """
    gone = [one.name for one in recording.run.sites if one.name in needs.sites and not one.attached]
    return f"not hooked in this sglang: {', '.join(gone)}" if gone else None


def why_not_exercised(needs: Needs, columns: Columns, ledger: Ledger) -> str:
    """Return in words why a law was checked nowhere."""
    recording = columns.recording
    if needs.observed_only and ledger.path != "observed":
        return "it applies only to what the server itself computed (--path observed)"
    held = all(holds_quantity(recording, quantity) for quantity in needs.quantities)
    if not held or not all(holds(recording.version, table) for table in needs.tables):
        return not_in(recording.version)
    if not needs.occurs(recording):
        return f"{needs.event}: none in this recording"
    silent = [q for q in needs.quantities if not ledger[q].captured.any()]
    if silent:
        reason = next((ledger.reasons[q] for q in silent if q in ledger.reasons), None)
        names = ", ".join(quantity.value for quantity in silent)
        return f"{names} not captured" + (f": {reason}" if reason else "")
    return left_out(needs, recording) or (
        f"{needs.event}: none with values that the law can be checked on"
    )


def left_out(needs: Needs, recording: Recording) -> str | None:
    """Return in words which requests are not fully checked because a value was not captured, or None."""
    asked, start = recording.finishes.return_routed_experts == 1, recording.finishes.start_len
    unknown = (
        int(np.sum(asked & (start == NONE64))) if needs.start and _has_experts(recording) else 0
    )
    if not unknown:
        return None
    return (
        f"the start_len of {unknown} requests was not captured; they count only where they have too "
        "many rows for any start_len"
    )


def _has_experts(recording: Recording) -> bool:
    return bool((recording.finishes.experts_state != NONE64).any())


def _decode(recording: Recording) -> NDArray[np.bool_]:
    decode: NDArray[np.bool_] = recording.result_rows.accept_len != NONE32
    return decode


def _requested(recording: Recording, *names: str) -> NDArray[np.bool_]:
    """For each end sent, return whether one of these lists was requested."""
    lists = [getattr(recording.sents, name) != NONE64 for name in names]
    asked: NDArray[np.bool_] = np.any(lists, axis=0)
    return asked


def _late(recording: Recording) -> NDArray[np.bool_]:
    rows = recording.result_rows
    late: NDArray[np.bool_] = (rows.finished == 1) | (rows.is_retracted == 1)
    return late


LIVE = Needs(
    "verify result of a running request",
    lambda r: int(np.sum(_decode(r) & ~_late(r))),
    (_SETTLED,),
)
STALE = Needs(
    "stale verify result",
    lambda r: int(np.sum(_decode(r) & _late(r))),
    (_SETTLED, *_COUNTERS),
)
ALLOCATED = Needs(
    "prepare or finish",
    lambda r: len(r.prepare_rows.qid) + len(r.finishes.qid),
    (_LENGTH, Quantity.KV_ALLOCATED_LEN),
)
ROOM = Needs(
    "decode launch",
    lambda r: int(np.sum(r.launches.mode == Mode.DECODE)),
    (Quantity.KV_ALLOCATED_LEN,),
)
FINISHED = Needs(
    "finish",
    lambda r: len(r.finishes.qid),
    (Quantity.ROUTED_EXPERTS, Quantity.INDEXER_TOPK),
    start=True,
)
SENT = Needs(
    "final message to a client", lambda r: len(r.sents.qid), observed_only=True, tables=("sents",)
)
SENT_LISTS = Needs(
    "final message to a client that asked for a per-token list",
    lambda r: int(
        np.sum(_requested(r, "num_logprobs", "num_hidden_states", "experts_rows", "indexer_rows"))
    ),
    observed_only=True,
    tables=("sents",),
    start=True,
)
SENT_ROWS = Needs(
    "final message to a client that asked for routed experts",
    lambda r: int(np.sum(_requested(r, "experts_rows"))),
    (Quantity.ROUTED_EXPERTS,),
    tables=("sents",),
    start=True,
)
SENT_LOGPROBS = Needs(
    "final message to a client that asked for log probabilities",
    lambda r: int(np.sum(_requested(r, "num_logprobs"))),
    observed_only=True,
    tables=("sents",),
)
SENT_HIDDEN_STATES = Needs(
    "final message to a client that asked for hidden states",
    lambda r: int(np.sum(_requested(r, "num_hidden_states"))),
    observed_only=True,
    tables=("sents",),
)
WEIGHTS_TOLD = Needs(
    "final message to a client together with weight versions",
    lambda r: len(r.spans.qid),
    observed_only=True,
    sites=("weights",),
    tables=("spans",),
)
INHERITS = Needs(
    "turn of a streaming session that inherits KV",
    lambda r: int(np.sum(r.restores.committed != NONE64)),
    (Quantity.SESSION_COMMITTED,),
)
SLICED = Needs("verify result", lambda r: int(np.sum(_decode(r))), observed_only=True)
SUMMED = Needs(
    "filter, merge or launch",
    lambda r: len(r.filters.num_rows) + len(r.merges.num_rows) + len(r.launches.num_rows),
    (Quantity.SEQ_LENS_SUM,),
)
COUNTED = Needs("finish", lambda r: len(r.finishes.qid), (Quantity.SPEC_HISTOGRAM, *_COUNTERS))
