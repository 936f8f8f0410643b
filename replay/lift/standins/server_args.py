"""The server settings that determine allocation sizes, read from the run attributes of a recording."""

from __future__ import annotations

from typing import Any

from ....recorders.run import Run
from ..missing import Missing
from .base import UNKNOWN_LEN, StandIn

_ALGORITHMS = ("EAGLE3", "STANDALONE", "NGRAM", "DFLASH", "DSPARK", "FROZEN_KV_MTP", "UNO", "NONE")
# The questions of sglang whose answer is yes for several algorithms.
_FAMILIES = {
    "is_eagle": ("EAGLE", "EAGLE3", "FROZEN_KV_MTP"),
    "is_dflash_family": ("DFLASH", "DSPARK"),
    **{f"is_{name.lower()}": (name,) for name in _ALGORITHMS},
}


class Algorithm(StandIn):
    """`SpeculativeAlgorithm` of the recorded server. It answers sglang's `is_...()` from its name.

    A question that is not known here stops the path: it may be about several algorithms.
    """

    what = "spec_algorithm"
    _WITHOUT_DRAFT_KV = ("NGRAM",)

    def __init__(self, name: str) -> None:
        self.name = name.upper() or "NONE"

    def __getattr__(self, name: str) -> Any:
        if name in ("is_some", "is_speculative"):
            return lambda: self.name != "NONE"
        if name in _FAMILIES:
            return lambda: self.name in _FAMILIES[name]
        if name == "has_draft_kv":
            return lambda: self.name not in self._WITHOUT_DRAFT_KV
        raise AttributeError(name) if name.startswith("__") else Missing(f"spec_algorithm.{name}")


class ServerArgs(StandIn):
    """Replaces `ServerArgs` and the smaller settings objects into which newer releases split it."""

    what = "server_args"
    attn_dcp_size = 1  # of the KV pool; recordings with context-parallel decode are not compared

    def __init__(self, run: Run) -> None:
        self.algorithm = Algorithm(run.spec_algorithm)
        self.speculative_algorithm = run.spec_algorithm or None
        self.page_size = run.page_size
        # A release without this setting never strips.
        self.strip_thinking_cache = bool(run.server_args.get("strip_thinking_cache", False))
        self._adaptive = bool(run.server_args.get("speculative_adaptive", False))
        most = run.server_args.get("max_speculative_num_draft_tokens", run.num_draft_tokens)
        self._sized: dict[str, Any] = {
            "speculative_num_steps": run.num_steps,
            "speculative_eagle_topk": run.topk,
            "speculative_num_draft_tokens": run.num_draft_tokens,
            "max_speculative_num_draft_tokens": most,
        }

    def drafts(self, num_steps: int | None, num_draft_tokens: int | None) -> None:
        """Set an adaptive server's draft length from now on.

        None means that it was not recorded and is unknown.
        """
        if self._adaptive:
            steps = UNKNOWN_LEN if num_steps is None else num_steps
            tokens = UNKNOWN_LEN if num_draft_tokens is None else num_draft_tokens
            self._sized |= {
                "speculative_num_steps": steps,
                "speculative_num_draft_tokens": tokens,
            }

    def __getattr__(self, name: str) -> Any:
        sized = self.__dict__.get("_sized", {})
        if name in sized and sized[name] is not None:
            return sized[name]
        raise AttributeError(name) if name.startswith("__") else Missing(f"server_args.{name}")
