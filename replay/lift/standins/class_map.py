"""Which stand-in receives the methods that are lifted from which sglang class."""

from __future__ import annotations

from .base import StandIn
from .batch import Batch, DraftInput
from .request import Kv, Request
from .scheduler import Capturer, FutureMap, Scheduler
from .session import Sessions, SessionSlot

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
    "SessionSlot": SessionSlot,
}


def answers(owner: str, member: str) -> bool:
    """Whether the stand-in defines this member itself; sglang's member is then not lifted."""
    base = BASES.get(owner)
    return base is not None and member in vars(base)
