"""The server settings that determine allocation sizes, read from the run attributes of a recording."""

from __future__ import annotations

from typing import Any

from ....recorders.run import Run
from ..missing import Missing
from .base import UNKNOWN_LEN, StandIn


class Algorithm(StandIn):
    """`SpeculativeAlgorithm` of the recorded server. It answers every `is_...()` from its name."""

    what = "spec_algorithm"
    _WITHOUT_DRAFT_KV = ("NGRAM",)

    def __init__(self, name: str) -> None:
        self.name = name.upper()

    def __getattr__(self, name: str) -> Any:
        if name == "is_none":
            return lambda: self.name in ("", "NONE")
        if name == "is_some":
            return lambda: self.name not in ("", "NONE")
        if name == "is_eagle":
            return lambda: self.name in ("EAGLE", "EAGLE3", "FROZEN_KV_MTP")
        if name.startswith("is_"):
            return lambda: self.name == name[3:].upper()
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
