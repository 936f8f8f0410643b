"""Which stand-in takes the methods lifted from which class of sglang."""

from __future__ import annotations

from .batch import Batch, DraftInput
from .request import Kv, Request
from .scheduler import Capturer, FutureMap, Scheduler
from .session import Sessions, Slot
from .standin import StandIn

BASES: dict[str, type[StandIn]] = {
    "Req": Request,
    "ReqKvInfo": Kv,
    "ScheduleBatch": Batch,
    "EagleDraftInputV2Mixin": DraftInput,
    "DFlashDraftInputV2": DraftInput,
    "SchedulerOutputProcessorMixin": Scheduler,
    "SchedulerBatchResultProcessor": Scheduler,
    "FutureMap": FutureMap,
    "BaseTopkCapturer": Capturer,
    "_RoutedExpertsCapturerReal": Capturer,
    "SessionAwareCache": Sessions,
    "StreamingSession": Sessions,
    "SessionSlot": Slot,
}


def answers(owner: str, member: str) -> bool:
    """Whether the stand-in has this member of its own: sglang's is then not lifted."""
    base = BASES.get(owner)
    return base is not None and member in vars(base)
