"""Compare lifted(R) with `observed`, over seeded random runs of every release R.

No other number matters more.

    python tests/fidelity.py                               # 50 runs of each release; recordings are kept and reused
    python tests/fidelity.py --releases 0.5.11 0.5.23 --seeds 3
    python tests/fidelity.py --recordings DIR              # recordings made elsewhere, of any release

Prints a matrix of release x quantity (values compared, mismatches), the set of fixes that equals
each release, and how often each branch was reached. Exits 1 on any mismatch, and if a quantity was
never compared on a release.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from fidelity_plays import plays, recordings
from fidelity_tally import Tally, print_branches, print_features, print_values, print_verdict
from specdiff.fixtures.rig.release import RELEASES
from specdiff.recorders import hdf5
from specdiff.replay import spec
from specdiff.replay.lift.link import Program
from specdiff.replay.lift.open import program_of


def main() -> int:
    options = _options()
    # While a scheduler is being recorded, more threads are 10 times slower.
    torch.set_num_threads(1)
    started = time.perf_counter()
    tallies: dict[str, Tally] = {}
    programs: dict[str, Program] = {}
    for path in _recordings(options):
        recording = hdf5.load(path)
        version = recording.run.sglang_version
        if version not in programs:
            programs[version] = _program(version)
        tallies.setdefault(version, Tally(version)).add(recording, programs[version])
    tallies = {version: tallies[version] for version in sorted(tallies, key=RELEASES.index)}
    print_values(tallies)
    print_features(tallies)
    print_branches(tallies)
    good = print_verdict(tallies)
    print(f"took {time.perf_counter() - started:.0f} s")
    return 0 if good else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--releases", nargs="+", choices=RELEASES, default=list(RELEASES), metavar="V"
    )
    parser.add_argument("--seeds", type=int, default=50, help="random runs of each release")
    parser.add_argument("--first", type=int, default=1, metavar="SEED", help="the first seed")
    parser.add_argument("--jobs", type=int, default=1, help="how many to record at the same time")
    parser.add_argument("--folder", type=Path, default=Path("build/fidelity"))
    parser.add_argument(
        "--recordings",
        type=Path,
        help="record nothing; use the recordings in and below this folder",
    )
    return parser.parse_args()


def _recordings(options: argparse.Namespace) -> Iterator[Path]:
    if options.recordings is not None:
        yield from sorted(options.recordings.rglob("*.h5"))
        return
    wanted = list(plays(options.releases, options.first, options.seeds))
    yield from recordings(wanted, options.folder, options.jobs)


def _program(version: str) -> Program:
    path = spec.parse(f"sglang=={version}")
    assert isinstance(path, spec.Lifted)
    return program_of(path)


if __name__ == "__main__":
    sys.exit(main())
