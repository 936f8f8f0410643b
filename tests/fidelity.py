"""The number that matters most: lifted(R) against `observed`, over seeded random runs of every release R.

    python tests/fidelity.py --seeds 50                    # all releases; recordings are kept and reused
    python tests/fidelity.py --releases 0.5.11 0.5.23 --seeds 3
    python tests/fidelity.py --recordings DIR              # recordings made elsewhere, whatever their release

Prints the matrix release x quantity (values compared, mismatches), the set of fixes that equals each release, and
the branches that all recordings together exercised. Exit 1 at any mismatch, or where a quantity was never compared.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from specdiff.fixtures.rig.releases import RELEASES
from specdiff.recorders import hdf5
from specdiff.recorders.recording import Recording
from specdiff.replay import spec
from specdiff.replay.columns.shared import Columns
from specdiff.replay.diff import diff
from specdiff.replay.exercised import exercised
from specdiff.replay.lift.ledger import ledger_of
from specdiff.replay.lift.link import Books
from specdiff.replay.lift.match import match
from specdiff.replay.lift.open import books_of
from specdiff.replay.observed import observed
from specdiff.replay.paths.fixes import ALL, subsets
from specdiff.replay.quantity import Quantity


@dataclass
class Tally:
    """One release, all its recordings."""

    recordings: int = 0
    compared: Counter[Quantity] = field(default_factory=Counter)
    differed: Counter[Quantity] = field(default_factory=Counter)
    missed: Counter[Quantity] = field(default_factory=Counter)  # not captured
    sets: set[frozenset[int]] = field(default_factory=lambda: set(subsets(ALL)))

    def add(self, recording: Recording, books: Books) -> None:
        columns = Columns(recording)
        self.recordings += 1
        for found in diff(recording, observed(columns), ledger_of(columns, books, books.name)):
            self.compared[found.quantity] += found.num_compared
            self.differed[found.quantity] += int(found.differs.sum())
            self.missed[found.quantity] += int(found.not_captured.sum())
        self.sets &= set(match([columns], books).sets)

    @property
    def equals(self) -> str:
        """The sets of fixes that equal the lifted books on every recording."""
        return (
            " = ".join(sorted(str(spec.FixSet(fixes)) for fixes in self.sets)) or "no set of fixes"
        )

    def cell(self, quantity: Quantity) -> str:
        if not self.compared[quantity]:
            return "-"
        missed = f" ({self.missed[quantity]} n/c)" if self.missed[quantity] else ""
        return f"{self.compared[quantity]}/{self.differed[quantity]}{missed}"


def main() -> int:
    options = _options()
    tallies: dict[str, Tally] = {}
    branches: Counter[str] = Counter()
    books: dict[str, Books] = {}
    for path in _recordings(options):
        recording = hdf5.load(path)
        version = recording.run.sglang_version
        if version not in books:
            path_spec = spec.parse(f"sglang=={version}")
            assert isinstance(path_spec, spec.Lifted)
            books[version] = books_of(path_spec)
        tallies.setdefault(version, Tally()).add(recording, books[version])
        branches.update(exercised(recording))
    _print(tallies, branches)
    wrong = any(sum(tally.differed.values()) for tally in tallies.values())
    total = sum((tally.compared for tally in tallies.values()), Counter[Quantity]())
    never = [q for q in Quantity if not total[q] and q is not Quantity.INDEXER_TOPK]
    return 1 if wrong or never or not tallies else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--releases", nargs="+", default=list(RELEASES), metavar="V")
    parser.add_argument("--seeds", type=int, default=3, help="random runs of each release")
    parser.add_argument("--scenario", default="random", help="what the rig plays")
    parser.add_argument("--folder", type=Path, default=Path("build/fidelity"))
    parser.add_argument("--recordings", type=Path, help="record nothing, take what is below here")
    return parser.parse_args()


def _recordings(options: argparse.Namespace) -> Iterator[Path]:
    if options.recordings is not None:
        yield from sorted(options.recordings.rglob("*.h5"))
        return
    for seed in range(1, options.seeds + 1):
        for version in options.releases:
            yield _recorded(options.folder, version, options.scenario, seed)


def _recorded(folder: Path, version: str, scenario: str, seed: int) -> Path:
    """The recording of this run, made when it is not there yet."""
    home = folder / version / f"{scenario}-{seed}"
    if found := next(iter(home.glob("*.h5")), None):
        return found
    record = [sys.executable, "-m", "specdiff.cli", "record", "-o", str(home), "--"]
    rig = [sys.executable, "-m", "specdiff.fixtures.rig", "--sglang", version]
    command = [*record, *rig, "--scenario", scenario, "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    print(f"recorded {version} {scenario} seed {seed}", file=sys.stderr, flush=True)
    return next(home.glob("*.h5"))


def _print(tallies: dict[str, Tally], branches: Counter[str]) -> None:
    print("values compared / mismatches, lifted(R) against what R's own scheduler computed\n")
    rows = [["release", "runs", *(quantity.value for quantity in Quantity), "equals"]]
    for version in sorted(tallies, key=RELEASES.index):
        tally = tallies[version]
        rows.append([version, str(tally.recordings), *map(tally.cell, Quantity), tally.equals])
    _table(rows)
    reached = ", ".join(f"{name} {count}" for name, count in branches.items() if count)
    never = ", ".join(name for name, count in branches.items() if not count)
    values = sum(sum(tally.compared.values()) for tally in tallies.values())
    wrong = sum(sum(tally.differed.values()) for tally in tallies.values())
    print(
        f"\n{wrong} of {values} values differ\nexercised: {reached}\nnever reached: {never or 'none'}"
    )


def _table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        )


if __name__ == "__main__":
    sys.exit(main())
