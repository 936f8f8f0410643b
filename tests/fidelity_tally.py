"""The counts that `make fidelity` keeps of each release, and the tables that it prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fidelity_plays import expected
from specdiff.fixtures.rig.release import RELEASES
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import Kind
from specdiff.replay.columns.shared import Columns
from specdiff.replay.diff import diff
from specdiff.replay.exercised import exercised
from specdiff.replay.lift.ledger import ledger_of
from specdiff.replay.lift.link import Program
from specdiff.replay.lift.match import match_ledgers
from specdiff.replay.observed import observed
from specdiff.replay.quantity import Quantity
from specdiff.replay.spec import FixSet


@dataclass
class Tally:
    """The counts over all recordings of one release."""

    release: str
    recordings: int = 0
    requests: int = 0
    compared: Counter[Quantity] = field(default_factory=Counter)
    differed: Counter[Quantity] = field(default_factory=Counter)
    missed: Counter[Quantity] = field(default_factory=Counter)  # not captured
    branches: Counter[str] = field(default_factory=Counter)
    features: Counter[str] = field(default_factory=Counter)  # values compared, by server feature
    wrong: Counter[str] = field(default_factory=Counter)
    sets: set[frozenset[int]] | None = None  # None: no recording says anything about them

    def add(self, recording: Recording, program: Program) -> None:
        columns = Columns(recording)
        lifted = ledger_of(columns, program, program.name)
        self.recordings += 1
        self.requests += len(recording.rids)
        feature = _feature(recording)
        for found in diff(recording, observed(columns), lifted):
            self.features[feature] += found.num_compared
            self.wrong[feature] += int(found.differs.sum())
            self.compared[found.quantity] += found.num_compared
            self.differed[found.quantity] += int(found.differs.sum())
            self.missed[found.quantity] += int(found.not_captured.sum())
        self.branches.update(exercised(recording))
        # The rules know nothing of sessions. Of other algorithms they know only what those share with EAGLE.
        if recording.run.spec_algorithm == "EAGLE" and not len(
            recording.event_of(Kind.SESSION_SAVE)
        ):
            found_sets = set(match_ledgers([(columns, lifted)]).sets)
            self.sets = found_sets if self.sets is None else self.sets & found_sets

    @property
    def never(self) -> list[Quantity]:
        """What should have been compared but never was."""
        return [quantity for quantity in expected(self.release) if not self.compared[quantity]]

    @property
    def equals(self) -> str:
        """The sets of fixes that equal the lifted program on every recording without sessions."""
        if self.sets is None:
            return "-"
        return " = ".join(sorted(str(FixSet(fixes)) for fixes in self.sets)) or "no set of fixes"

    def cell(self, quantity: Quantity) -> str:
        if not self.compared[quantity]:
            return "-"
        missed = f" ({self.missed[quantity]} n/c)" if self.missed[quantity] else ""
        return f"{self.compared[quantity]}/{self.differed[quantity]}{missed}"


def print_values(tallies: Mapping[str, Tally]) -> None:
    print("values compared / mismatches: lifted(R) against what the scheduler of R computed\n")
    rows = [["release", "requests", *(quantity.value for quantity in Quantity), "equals"]]
    for tally in tallies.values():
        rows.append([tally.release, str(tally.requests), *map(tally.cell, Quantity), tally.equals])
    _table(rows)


def print_features(tallies: Mapping[str, Tally]) -> None:
    """Print a line per algorithm, topk and page size, with the releases never compared under it."""
    print("\nvalues compared / mismatches, by server feature\n")
    rows = [["algorithm", "fewest", "most", "mismatches", "never on"]]
    for name in dict.fromkeys(name for tally in tallies.values() for name in tally.features):
        counts = {release: tally.features[name] for release, tally in tallies.items()}
        never = [release for release, count in counts.items() if not count]
        some = [count for count in counts.values() if count] or [0]
        wrong = sum(tally.wrong[name] for tally in tallies.values())
        rows.append([name, str(min(some)), str(max(some)), str(wrong), _ranges(never)])
    _table(rows)


def _feature(recording: Recording) -> str:
    run = recording.run
    topk = f", topk {run.topk}" if run.topk != 1 else ""
    pages = f", pages of {run.page_size}" if run.page_size != 1 else ""
    return f"{run.spec_algorithm}{topk}{pages}"


def print_branches(tallies: Mapping[str, Tally]) -> None:
    """Print one line per branch. 33 branches by 19 releases would not fit on a screen."""
    print("\nhow often each branch was reached\n")
    rows = [["branch", "fewest", "most", "never on"]]
    names = dict.fromkeys(name for tally in tallies.values() for name in tally.branches)
    for name in names:
        counts = {release: tally.branches[name] for release, tally in tallies.items()}
        never = [release for release, count in counts.items() if not count]
        said = "any" if len(never) == len(counts) else _ranges(never)
        rows.append([name, str(min(counts.values())), str(max(counts.values())), said])
    _table(rows)


def print_verdict(tallies: Mapping[str, Tally]) -> bool:
    """Print the totals. Return True if everything expected was compared and nothing differs."""
    values = sum(tally.compared.total() for tally in tallies.values())
    wrong = sum(tally.differed.total() for tally in tallies.values())
    requests = sum(tally.requests for tally in tallies.values())
    print(f"\n{wrong} of {values} values differ, {requests} requests on {len(tallies)} releases")
    never = [(tally.release, tally.never) for tally in tallies.values() if tally.never]
    for release, quantities in never:
        print(f"never compared on {release}: {', '.join(q.value for q in quantities)}")
    return bool(values) and not wrong and not never


def _ranges(releases: Sequence[str]) -> str:
    """Return e.g. "0.5.9 to 0.5.11, 0.5.14": adjacent releases become one range."""
    runs: list[list[str]] = []
    for release in releases:
        if runs and RELEASES.index(release) == RELEASES.index(runs[-1][-1]) + 1:
            runs[-1].append(release)
        else:
            runs.append([release])
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def _table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        )
