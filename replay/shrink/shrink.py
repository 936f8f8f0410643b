"""What is behind `specdiff shrink`: choose a divergence or a breach, shrink to it, and leave a recording that may be passed on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ...recorders.derived import Derived, contents_left_by_shrink
from ...recorders.errors import NoVerdictError, RecordingError
from ...recorders.pseudonyms import pseudonymous
from ...recorders.recording import Recording
from ...recorders.schema import NONE64
from ..laws.law import Outcome
from ..quantity import Quantity
from ..spec import Lifted, Observed, Origin, Path
from ..verdict import QuantityResult, Result, Verdict
from ..verdict import replay as replay_recording
from .breach import LawQuestion
from .shrinking import Asks, Progress, Shrinking
from .symptom import Question


@dataclass(frozen=True, slots=True)
class Shrunk:
    """`interrupted`: less might still be left out. `shows`: the replay of what is left, or how it keeps the law."""

    recording: Recording
    before: Progress
    left: Progress
    interrupted: bool
    shows: Result | Outcome

    @property
    def whole_for(self) -> str | None:
        """The side (old, fixed) that is `observed`, where no request could go for its sums: they are of whole batches."""
        if isinstance(self.shows, Outcome):
            return None
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
    shows = f"{_name(paths[0])} and {_name(paths[1])} first part over {wanted.value} as they did"
    part = _shrunk(recording, source, question, tell, keep_tokens=keep_tokens, shows=shows)
    return Shrunk(*part, replay_recording(part.recording, *paths, [wanted]))


def shrink_to_breach(
    recording: Recording,
    source: str,
    path: Path,
    law: str,
    tell: Callable[[Progress], None],
    *,
    keep_tokens: bool = False,
) -> Shrunk:
    """As `shrink`, to the first place where a path breaks a law. Raises NoVerdictError where it does not."""
    question = LawQuestion(path, law)
    outcome = question.outcome(recording)
    if outcome.first is None:
        why = outcome.idle or f"it holds in {outcome.num_checked} places"
        raise NoVerdictError(f"nothing to shrink: the law {law} is not broken ({why}).")
    shows = f"{_name(path)} first breaks the law {law} as it did"
    part = _shrunk(recording, source, question, tell, keep_tokens=keep_tokens, shows=shows)
    return Shrunk(*part, question.outcome(part.recording))


class _Part(NamedTuple):
    recording: Recording
    before: Progress
    left: Progress
    interrupted: bool


def _shrunk(
    recording: Recording,
    source: str,
    question: Asks,
    tell: Callable[[Progress], None],
    *,
    keep_tokens: bool,
    shows: str,
) -> _Part:
    """`shows`: in words, what the question is about."""
    found = question(recording)
    assert found is not None, "what is to be shrunk to is not found by the question"
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
            f"that {shows} depends on which tokens there are, and they were replaced: use --keep-tokens."
        )
    says = _says(before, left, shows, keep_tokens=keep_tokens)
    step = Derived("shrink", source, says, before.num_requests - left.num_requests)
    before_it = made.derived[: len(recording.derived)]  # less the cut, which is this step
    return _Part(replace(made, derived=(*before_it, step)), before, left, interrupted)


def target(result: Result, to: str = "shrink") -> Quantity:
    """The first quantity that differs. The raw committed length only if nothing else does: across 0.5.10/0.5.11 and
    0.5.14/0.5.15, where the pre-claim came and went, it differs nearly everywhere, and hides what is wrong.

    Raises NoVerdictError where none does: there is nothing `to` do.
    """
    if result.verdict is not Verdict.DIFFERS:
        raise NoVerdictError(f"nothing to {to}: {_nothing(result)}.")
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


def _says(before: Progress, left: Progress, shows: str, *, keep_tokens: bool) -> str:
    kept = f"{left.num_requests} of {before.num_requests} requests, {left.num_steps} of {before.num_steps} steps"
    return f"{kept}; {contents_left_by_shrink(keep_tokens=keep_tokens)}; {shows}"


def _name(path: Path) -> str:
    """Where a source tree lies on this machine is nobody's business, and no use elsewhere."""
    is_tree = isinstance(path, Lifted) and path.origin is Origin.TREE
    return "a source tree" if is_tree else str(path)
