"""#25818: compute seq_lens_sum in one place.

Old: extend, prepare, filter and merge each update the sum, from CPU lengths that are one launch
late under overlap. New: filter and merge leave it None, and it is computed once before the forward,
from the true lengths. Source of truth: no release contains this pull request, because #25879
superseded it the next day. The rule is reconstructed from its description and was compared with
sglang 0.5.13, whose producers also write None.
"""

from __future__ import annotations

import dataclasses

from .rules import Rules


def apply(rules: Rules) -> Rules:
    return dataclasses.replace(rules, lazy_sums=True)
