"""Replay a recording under two paths and judge the result: the core of `specdiff replay`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from ..recorders.recording import Recording
from ..recorders.run import Run
from ..recorders.schema import NONE64, Kind, Reason
from .cause import cause
from .cells import at_same_places
from .columns.engine import RULED
from .columns.shared import Columns
from .contents import Contents, contents
from .diff import SeriesDiff, diff
from .exercised import exercised
from .expected import concrete
from .explain import Explanation, Toggles, explain
from .held import branches_not_held, holds_quantity, not_in
from .ledger import Ledger, Series
from .lift.ledger import lifted
from .observed import observed
from .paths.fixes import NUMBERS
from .quantity import Quantity
from .spec import FixSet, Lifted, Observed, Path


class Verdict(str, Enum):
    """The outcome of a comparison."""

    SAME = "same"
    DIFFERS = "differs"
    NO_VERDICT = "no-verdict"


@dataclass(frozen=True, slots=True)
class RowSpan:
    """Rows [start, end) of a finished request."""

    start: int
    end: int

    @property
    def span(self) -> str:
        return f"[{self.start}, {self.end})"

    def __str__(self) -> str:
        return f"{self.span} {self.end - self.start} rows"


@dataclass(frozen=True, slots=True)
class FinishDecision:
    """What was decided after a result.

    `reason` is None if the request continues, otherwise why it ends.

    `length` is finished_len, the number of output tokens through the stop. It is None if sglang has
    none (aborts).
    """

    reason: Reason | None
    length: int | None

    def __str__(self) -> str:
        if self.reason is None:
            return "goes on"
        name = self.reason.name.lower().replace("_", " ")
        return f"{name} at {self.length}" if self.length is not None else name


@dataclass(frozen=True, slots=True)
class HistogramSums:
    """A request's histogram of accepted drafts per step, summed up: the numbers of steps and of drafts."""

    steps: int
    drafts: int

    def __str__(self) -> str:
        return f"{self.drafts} drafts in {self.steps} steps"


Value = int | RowSpan | FinishDecision | HistogramSums | None


@dataclass(frozen=True, slots=True)
class Divergence:
    """One place where two ledgers differ."""

    event: int  # index in the event order
    kind: Kind
    step: int  # scheduler.forward_ct at that event
    rid: str | None  # None if the value belongs to a whole batch
    old: Value
    new: Value
    cause: str
    # the minimal sets that explain it; empty if unexplained, or not computed by the fixes' rules
    fixes: tuple[frozenset[int], ...]
    # "old" or "fixed": the side whose value the recorded server has here, if neither side is
    # `observed`; None if it has neither value, or the recording does not say
    recorded_as: str | None


@dataclass(frozen=True, slots=True)
class ByFix:
    """The differing cells that a fix explains, alone or with others.

    `first` is the first cell that the fix explains alone, or the first of all if there is none.
    """

    number: int
    num_differed: int
    first: Divergence | None


@dataclass(frozen=True, slots=True)
class QuantityResult:
    """The comparison of one quantity. The counts are numbers of cells.

    `num_unexplained` is None if the rules of the fixes do not compute the quantity. `num_as_first`
    counts the differing cells explained by one of the sets that explain the first.
    """

    quantity: Quantity
    num_compared: int
    num_differed: int
    num_not_captured: int
    num_excused: int
    num_unexplained: int | None
    num_as_first: int
    first: Divergence | None
    first_unexplained: Divergence | None
    by_fix: tuple[ByFix, ...]
    why_not: str | None  # the reason, if nothing was compared
    contents: Contents | None  # comparison of the rows' contents; None for other quantities


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """The comparison of two paths over one recording."""

    run: Run
    num_events: int
    num_requests: int
    old: Path
    new: Path
    named: tuple[Path, Path]  # the same as they were given: `expected` is not replaced
    verdict: Verdict
    quantities: tuple[QuantityResult, ...]
    version: int  # the recording's format version
    exercised: dict[str, int]
    not_held: tuple[str, ...]  # branches that this version of the format cannot hold
    warnings: tuple[str, ...]  # what the recorder itself lost
    unknown: tuple[str, ...]  # global names of the lifted paths without a stand-in


def replay(
    recording: Recording, old: Path, new: Path, quantities: Sequence[Quantity] | None = None
) -> ReplayResult:
    """Replay under both paths and compare. If `quantities` is given, only these are compared.

    The verdict is `Verdict.NO_VERDICT` if no value was compared at all, or if no value was compared
    of a quantity in `quantities`.
    """
    return compare(Columns(recording), old, new, quantities, last=True)


def compare(
    columns: Columns,
    old: Path,
    new: Path,
    quantities: Sequence[Quantity] | None = None,
    *,
    last: bool = False,
) -> ReplayResult:
    """Like `replay`, for a recording that is replayed under other paths too: shared parts are computed once.

    Set `last` if no other paths follow. Then only the values of quantities with the same cells are
    in memory at a time.
    """
    recording, wanted = columns.recording, tuple(dict.fromkeys(quantities or Quantity))
    named, old, new = (old, new), concrete(old, recording), concrete(new, recording)
    made: dict[Quantity, QuantityResult] = {}
    unknown: set[str] = set()
    for some in at_same_places(wanted):
        results, names = _compare_some(columns, (old, new), some, wanted)
        made |= results
        unknown |= names
        if last:
            columns.drop_computed()
    compared = tuple(made[quantity] for quantity in wanted)
    return ReplayResult(
        run=recording.run,
        num_events=len(recording.events.kind),
        num_requests=len(recording.rids),
        old=old,
        new=new,
        named=named,
        verdict=_verdict(compared, named=quantities is not None),
        quantities=compared,
        version=recording.version,
        exercised=exercised(recording),
        not_held=branches_not_held(recording),
        warnings=tuple(_warnings(recording)),
        unknown=tuple(sorted(unknown)),
    )


def _compare_some(
    columns: Columns,
    paths: tuple[Path, Path],
    some: tuple[Quantity, ...],
    wanted: tuple[Quantity, ...],
) -> tuple[dict[Quantity, QuantityResult], set[str]]:
    """Return the results of some of the wanted quantities, and the global names without a stand-in."""
    toggles = columns.once(("toggles", some), lambda: Toggles(columns, some))
    old, new = (ledger_of(columns, toggles, path, some, wanted).only(some) for path in paths)
    judge = _Judge(columns, toggles, paths, (old, new))
    results = {made.quantity: judge(made) for made in diff(columns.recording, old, new)}
    return results, {*old.unknown, *new.unknown}


def _warnings(recording: Recording) -> Iterator[str]:
    """Yield warnings about lost events and recorder errors."""
    stats = recording.stats
    if stats is not None and stats.dropped:
        events = "1 event" if stats.dropped == 1 else f"{stats.dropped} events"
        yield f"the recorder dropped {events}; gaps mark the places, and nothing is compared across them"
    if stats is not None and stats.exceptions:
        times = "once" if stats.exceptions == 1 else f"{stats.exceptions} times"
        yield f"the recorder failed {times}; first: {stats.first_exception}"
    if recording.damage:
        yield f"the end of the recording is lost: {recording.damage}"


def ledger_of(
    columns: Columns,
    toggles: Toggles,
    path: Path,
    wanted: Sequence[Quantity] = tuple(Quantity),
    replayed: Sequence[Quantity] | None = None,
) -> Ledger:
    """Compute one path's ledger.

    `wanted` limits the quantities; for a set of fixes, `toggles` already does. `replayed` lists the
    quantities that one replay of a lifted path computes, if more of them will be wanted later.

    Raises UsageError or NoVerdictError if a lifted path is not available or cannot run.
    """
    path = concrete(path, columns.recording)
    if isinstance(path, FixSet):
        return toggles(path.fixes)
    if isinstance(path, Lifted):
        return lifted(columns, path, wanted, replayed)
    return observed(columns, wanted)


def _verdict(results: Sequence[QuantityResult], *, named: bool) -> Verdict:
    """Derive the overall verdict.

    `named`: the quantities were chosen by name, so each must have been compared.
    """
    compared = [result.num_compared > 0 for result in results]
    if any(result.num_differed for result in results):
        return Verdict.DIFFERS
    if not any(compared) or (named and not all(compared)):
        return Verdict.NO_VERDICT
    return Verdict.SAME


class _Judge:
    """Turns the difference of one quantity into its result."""

    def __init__(
        self,
        columns: Columns,
        toggles: Toggles,
        paths: tuple[Path, Path],
        ledgers: tuple[Ledger, Ledger],
    ) -> None:
        self._columns, self._toggles, self._ledgers = columns, toggles, ledgers
        self._old, self._new = paths

    def __call__(self, difference: SeriesDiff) -> QuantityResult:
        why = explain(self._toggles, difference, self._old, self._new)
        by_fix = (self._by_fix(difference, why, number) for number in NUMBERS)
        ruled, places = difference.quantity in RULED, torch.nonzero(difference.differs).flatten()
        return QuantityResult(
            quantity=difference.quantity,
            num_compared=difference.num_compared,
            num_differed=int(difference.differs.sum()),
            num_not_captured=int(difference.not_captured.sum()),
            num_excused=int(difference.excused.sum()),
            num_unexplained=int(why.unexplained.sum()) if ruled else None,
            num_as_first=int(why.like_cell(int(places[0])).sum()) if len(places) else 0,
            first=self._first(difference, why, difference.differs),
            first_unexplained=self._first(difference, why, why.unexplained),
            by_fix=tuple(fix for fix in by_fix if fix.num_differed),
            why_not=None if difference.num_compared else self._why_not(difference),
            contents=contents(self._columns.recording, difference),
        )

    def _why_not(self, difference: SeriesDiff) -> str:
        recording = self._columns.recording
        if not holds_quantity(recording, difference.quantity):
            return not_in(recording.version)
        if not len(difference.old.cells):
            return "no event in this recording has a value for it"
        said = (made.reasons.get(difference.quantity) for made in self._ledgers)
        return next((reason for reason in said if reason), "this recording does not hold it")

    def _by_fix(self, difference: SeriesDiff, why: Explanation, number: int) -> ByFix:
        mask, alone = why.by_fix(number), why.by_fix_alone(number)
        first = self._first(difference, why, alone if alone.any() else mask)
        return ByFix(number, int(mask.sum()), first)

    def _first(self, difference: SeriesDiff, why: Explanation, mask: Tensor) -> Divergence | None:
        places = torch.nonzero(mask).flatten()
        if not len(places):
            return None
        cell, recording = int(places[0]), self._columns.recording
        cells = difference.old.cells
        event, qid = int(cells.event[cell]), int(cells.qid[cell])
        return Divergence(
            event=event,
            kind=Kind(int(cells.kind[cell])),
            step=int(recording.events.iteration[event]),
            rid=recording.rids[qid] if qid >= 0 else None,
            old=value_of(difference.old, cell),
            new=value_of(difference.new, cell),
            cause=cause(self._columns, difference, cell),
            fixes=why.of_cell(cell),
            recorded_as=self._recorded_as(difference, cell),
        )

    def _recorded_as(self, difference: SeriesDiff, cell: int) -> str | None:
        if isinstance(self._old, Observed) or isinstance(self._new, Observed):
            return None
        quantity, columns = difference.quantity, self._columns
        server = columns.once(
            ("observed", quantity), lambda: observed(columns, (quantity,))[quantity]
        )
        if not server.captured[cell]:
            return None
        for side, series in (("old", difference.old), ("fixed", difference.new)):
            if torch.equal(server.values[cell], series.values[cell]):
                return side
        return None


def value_of(series: Series, cell: int) -> Value:
    """Return the value of a cell for display.

    It is None if sglang holds None or nothing was collected.
    """
    values: list[int] = series.values[cell].tolist()
    if len(values) == 1:
        return None if values[0] == NONE64 else values[0]
    if series.quantity is Quantity.SPEC_HISTOGRAM:
        return HistogramSums(*values)
    if series.quantity is Quantity.FINISH:
        reason = Reason(values[1]) if values[0] else None
        return FinishDecision(reason, None if values[2] == NONE64 else values[2])
    return RowSpan(values[1], values[2]) if values[0] else None
