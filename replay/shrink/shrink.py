"""The one function behind `specdiff shrink`: choose a divergence, shrink to it, and leave a recording that may be passed on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ...recorders.derived import Derived
from ...recorders.errors import NoVerdictError, RecordingError
from ...recorders.pseudonyms import pseudonymous
from ...recorders.recording import Recording
from ...recorders.schema import NONE64
from ..quantity import Quantity
from ..spec import Lifted, Observed, Origin, Path
from ..verdict import QuantityResult, Result, Verdict
from ..verdict import replay as replay_recording
from .shrinking import Progress, Shrinking
from .symptom import Question


@dataclass(frozen=True, slots=True)
class Shrunk:
    """`shows`: the replay of what is left. `interrupted`: less might still be left out."""

    recording: Recording
    before: Progress
    left: Progress
    shows: Result
    interrupted: bool

    @property
    def whole_for(self) -> str | None:
        """The side (old, fixed) that is `observed`, where no request could go for its sums: they are of whole batches."""
        (made,) = self.shows.quantities
        if self.before.num_requests == 1 or made.quantity is not Quantity.SEQ_LENS_SUM:
            return None
        sides = {"old": self.shows.old, "fixed": self.shows.new}
        return next((name for name, path in sides.items() if isinstance(path, Observed)), None)


def shrink(
    recording: Recording,
    source: str,
    paths: tuple[Path, Path],
    quantity: Quantity | None,
    tell: Callable[[Progress], None],
    *,
    keep_tokens: bool = False,
) -> Shrunk:
    """`source`: sha256 of the recording's file; `quantity`: None for the first that differs; `tell`: at each success.

    Ctrl-C ends it early, with the best so far. Raises NoVerdictError where the paths do not part at all.
    """
    wanted = target(replay_recording(recording, *paths, None if quantity is None else [quantity]))
    question = Question(*paths, wanted)
    found = question(recording)
    assert found is not None, "replay saw a divergence that the question does not"
    shrinking = Shrinking(recording, source, question, found, tell)
    before, interrupted = shrinking.progress(), False
    try:
        shrinking.run()
    except KeyboardInterrupt:
        interrupted = True
    left = shrinking.progress()
    made = _without_contents(shrinking.recording(), keep_tokens=keep_tokens)
    answer = question(made)
    if answer is None or answer.symptom != found.symptom:
        raise RecordingError(
            f"where {wanted.value} parts depends on which tokens there are, and they were replaced: use --keep-tokens."
        )
    says = _says(before, left, paths, wanted, keep_tokens=keep_tokens)
    step = Derived("shrink", source, says, before.num_requests - left.num_requests)
    before_it = made.derived[: len(recording.derived)]  # less the cut, which is this step
    made = replace(made, derived=(*before_it, step))
    return Shrunk(made, before, left, replay_recording(made, *paths, [wanted]), interrupted)


def target(result: Result) -> Quantity:
    """The first quantity that differs. The raw committed length only if nothing else does: across 0.5.10/0.5.11 and
    0.5.14/0.5.15, where the pre-claim came and went, it differs nearly everywhere, and hides what is wrong.
    """
    if result.verdict is not Verdict.DIFFERS:
        raise NoVerdictError(f"nothing to shrink: {_nothing(result)}.")
    differ = [made for made in result.quantities if made.num_differed]
    return min(differ, key=_is_raw).quantity


def _is_raw(made: QuantityResult) -> bool:
    return made.quantity is Quantity.KV_COMMITTED_LEN


def _nothing(result: Result) -> str:
    compared = sum(made.num_compared for made in result.quantities)
    if result.verdict is Verdict.SAME:
        return f"same, {compared} values compared"
    return "nothing was compared" if not compared else "not one value of it was captured"


def _without_contents(recording: Recording, *, keep_tokens: bool) -> Recording:
    """What is in routed rows bears on no book; which tokens there are only by what stops a request."""
    finishes = recording.finishes
    none, nowhere = np.zeros_like(finishes.qid), np.full_like(finishes.qid, NONE64)
    bare = replace(
        recording,
        finishes=replace(
            finishes,
            experts_stored=none,
            indexer_stored=none,
            experts_stored_from=nowhere,
            indexer_stored_from=nowhere,
        ),
        experts=recording.experts[:0],
        indexer=recording.indexer[:0],
    )
    return bare if keep_tokens else pseudonymous(bare)


def _says(
    before: Progress,
    left: Progress,
    paths: tuple[Path, Path],
    quantity: Quantity,
    *,
    keep_tokens: bool,
) -> str:
    kept = f"{left.num_requests} of {before.num_requests} requests, {left.num_steps} of {before.num_steps} steps"
    contents = "" if keep_tokens else "tokens, ids, the command line and paths replaced, "
    return (
        f"{kept}; {contents}what was in routed rows left out; {_name(paths[0])} and {_name(paths[1])} first part over "
        f"{quantity.value} as they did"
    )


def _name(path: Path) -> str:
    """Where a source tree lies on this machine is nobody's business, and no use elsewhere."""
    is_tree = isinstance(path, Lifted) and path.origin is Origin.TREE
    return "a source tree" if is_tree else str(path)
