"""#22651: claim the bonus slot at prepare.

Old: a result commits all it accepted, +a, when it is processed, one step late. Code that reads the
committed length in between (a streaming session's save) gets one too few. New: prepare_for_decode
adds 1, the result adds a - 1. Source of truth: sglang 0.5.11, eagle_info_v2.prepare_for_decode and
_resolve_spec_overlap_token_ids. Removed in 0.5.15 (#28754).
"""

from __future__ import annotations

import dataclasses

from .rules import Rules


def apply(rules: Rules) -> Rules:
    return dataclasses.replace(rules, claim=1)
