"""#25818: one place keeps seq_lens_sum.

Old: extend, prepare, filter and merge each keep the sum, on CPU lengths that are a launch behind under overlap.
New: filter and merge leave it None, and it is computed once before the forward, from the true lengths.
Source of truth: no release holds this pull request; #25879 superseded it the next day. Reconstructed from its
description, and held against sglang 0.5.13, whose producers write None too.
"""

from __future__ import annotations

import dataclasses

from .rules import Rules


def apply(rules: Rules) -> Rules:
    return dataclasses.replace(rules, lazy_sums=True)
