"""`specdiff shrink`: choose a divergence or a breach, shrink to it, and return a recording that may
be passed on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ...recorders.derived import Derived
from ...recorders.errors import NoVerdictError, RecordingError
from ...recorders.pseudonyms import pseudonymous
from ...recorders.recording import Recording
from ...recorders.schema import NONE64
from ..expected import concrete
from ..laws.law import LawOutcome
from ..quantity import Quantity
from ..spec import Lifted, Observed, Origin, Path
from ..verdict import QuantityResult, ReplayResult, Verdict
from ..verdict import replay as replay_recording
from .breach import LawQuestion
from .shrinking import Asks, Shrinking, ShrinkProgress
from .symptom import Question


@dataclass(frozen=True, slots=True)
class ShrunkRecording:
    """A shrunk recording.

    If `interrupted` is true, it could perhaps be smaller. `shows` is the replay of the shrunk
    recording, or its outcome for the law.
    """

    recording: Recording
    before: ShrinkProgress
    left: ShrinkProgress
    interrupted: bool
    shows: ReplayResult | LawOutcome
    whole: QuantityResult | None = None  # the divergences of this quantity before; None for a law

    @property
    def side_that_keeps_all(self) -> str | None:
        """The side (old or fixed) whose path is `observed`, if that kept every request in the recording.

        An observed sum is that of a whole batch, so no request can be left out. None otherwise.
        """
        if isinstance(self.shows, LawOutcome):
            return None
        (made,) = self.shows.quantities
        if self.before.num_requests == 1 or made.quantity is not Quantity.SEQ_LENS_SUM:
            return None
        sides = {"old": self.shows.old, "fixed": self.shows.new}
        return next((name for name, path in sides.items() if isinstance(path, Observed)), None)


def shrink_to_divergence(
    recording: Recording,
    source: str,
    paths: tuple[Path, Path],
    quantity: Quantity | None,
    tell: Callable[[ShrinkProgress], None],
    *,
    keep_tokens: bool = False,
) -> ShrunkRecording:
    """Shrink a recording to the first divergence between two paths.

    `source` is the sha256 of the recording's file. `quantity` is the quantity to shrink to; None means
    the first one that differs. `tell` is called each time a smaller part is found. Ctrl-C ends the
    search early and returns the best part so far.

    Raises NoVerdictError if the paths do not differ.
    """
    before = replay_recording(recording, *paths, None if quantity is None else [quantity])
    paths, wanted = (before.old, before.new), target(before)
    (whole,) = (made for made in before.quantities if made.quantity is wanted)
    question = Question(*paths, wanted)
    shows = f"{_name(paths[0])} and {_name(paths[1])} first part over {wanted.value} as they did"
    part = _shrunk(recording, source, question, tell, keep_tokens=keep_tokens, shows=shows)
    return ShrunkRecording(*part, replay_recording(part.recording, *paths, [wanted]), whole)


def shrink_to_breach(
    recording: Recording,
    source: str,
    path: Path,
    law: str,
    tell: Callable[[ShrinkProgress], None],
    *,
    keep_tokens: bool = False,
) -> ShrunkRecording:
    """Like `shrink_to_divergence`, but to the first place where a path breaks a law.

    Raises NoVerdictError if the path does not break it.
    """
    path = concrete(path, recording)
    question = LawQuestion(path, law)
    outcome = question.outcome(recording)
    if outcome.first is None:
        why = outcome.why_not_exercised or f"it holds in all {outcome.num_checked} places"
        raise NoVerdictError(f"nothing to shrink: the law {law} is not broken ({why}).")
    shows = f"{_name(path)} first breaks the law {law} as it did"
    part = _shrunk(recording, source, question, tell, keep_tokens=keep_tokens, shows=shows)
    return ShrunkRecording(*part, question.outcome(part.recording))


class _Part(NamedTuple):
    recording: Recording
    before: ShrinkProgress
    left: ShrinkProgress
    interrupted: bool


def _shrunk(
    recording: Recording,
    source: str,
    question: Asks,
    tell: Callable[[ShrinkProgress], None],
    *,
    keep_tokens: bool,
    shows: str,
) -> _Part:
    """Shrink until the question's answer would change. `shows` says in words what the answer is."""
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
            f"after the output tokens were replaced, it is no longer true that {shows}. Use --keep-tokens."
        )
    step = Derived(
        how="shrink",
        source=source,
        description=_description(before, left, shows, keep_tokens=keep_tokens),
        requests_left_out=before.num_requests - left.num_requests,
        tokens_replaced=not keep_tokens,
    )
    before_it = made.derived[: len(recording.derived)]  # without the cut: it is part of this step
    return _Part(replace(made, derived=(*before_it, step)), before, left, interrupted)


def target(result: ReplayResult, to: str = "shrink") -> Quantity:
    """Return the first quantity that differs.

    The raw committed length is chosen only if nothing else differs. From 0.5.10 to 0.5.11 and from
    0.5.14 to 0.5.15, where the pre-claim was added and removed, it differs nearly everywhere and
    hides the real error.

    Raises NoVerdictError if no quantity differs; its message says that there is nothing to `to`.
    """
    if result.verdict is not Verdict.DIFFERS:
        raise NoVerdictError(f"nothing to {to}: {_nothing(result)}.")
    differ = [made for made in result.quantities if made.num_differed]
    return min(differ, key=_is_raw).quantity


def _is_raw(made: QuantityResult) -> bool:
    return made.quantity is Quantity.KV_COMMITTED_LEN


def _nothing(result: ReplayResult) -> str:
    compared = sum(made.num_compared for made in result.quantities)
    if result.verdict is Verdict.SAME:
        return f"same, {compared} values compared"
    return "nothing was compared" if not compared else "no value of it was captured"


def _without_contents(recording: Recording, *, keep_tokens: bool) -> Recording:
    """Remove the contents of routed rows and, unless `keep_tokens` is set, replace the tokens.

    The contents of rows have no effect on the books. Token ids matter only if they stop a request.
    """
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


def _description(
    before: ShrinkProgress, left: ShrinkProgress, shows: str, *, keep_tokens: bool
) -> str:
    kept = f"{left.num_requests} of {before.num_requests} requests, {left.num_steps} of {before.num_steps} steps"
    replaced = "" if keep_tokens else "tokens, ids, the command line and paths replaced, "
    return f"{kept}; {replaced}what was in routed rows left out; {shows}"


def _name(path: Path) -> str:
    """Name a path without the location of a source tree: it is private, and useless elsewhere."""
    is_tree = isinstance(path, Lifted) and path.origin is Origin.TREE
    return "a source tree" if is_tree else str(path)
