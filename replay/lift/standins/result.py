"""The stand-in of a `GenerationBatchResult`: what came back from the device for one decode launch."""

from __future__ import annotations

from .base import StandIn
from .vector import Vector


class GenerationBatchResult(StandIn):
    """`stride` is the padded width of one request's tokens.

    `num_non_draft` is None in recordings of releases that always meant 1.
    """

    what = "result"
    # Block and cap lengths are for algorithms other than EAGLE; sglang's own value for EAGLE is
    # None.
    block_accept_lens = None
    cap_lens = None
    grammar_advanced = False
    copy_done = None

    def __init__(
        self, tokens: list[int], accept_lens: list[int], stride: int, num_non_draft: int | None
    ) -> None:
        self.next_token_ids = Vector(tokens)
        self.accept_lens = Vector(accept_lens)
        self.speculative_num_draft_tokens = stride
        self.speculative_output_stride = stride
        self.num_non_draft_tokens_per_req = 1 if num_non_draft is None else num_non_draft
