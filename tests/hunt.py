"""Hunt for bugs with a state machine that drives a release's real scheduler.

Each step is compared with the lifted release and checked against the laws.

    make hunt RELEASE=0.5.23 MINUTES=10
    python tests/hunt.py --release 0.5.23 --minutes 10 --servers tight --silence session

Requests, session turns, aborts, retracts, flushes and steps come in any order, on schedulers with
several page sizes and pool sizes. sglang's own checks of its pools are switched on.

Hypothesis shrinks what is found. The hunt writes it as a scenario for the rig, plays that in a
fresh process, and leaves it under build/hunt/ with its recording. It then exits 1. The seeds are
printed, so a hunt can be repeated.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import time
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.errors import Flaky
from hypothesis.internal.conjecture import engine
from hypothesis.stateful import get_state_machine_test

from hunt_judge import HuntJudge
from hunt_leave import leave
from hunt_machine import Machine
from hunt_pack import KNOWN_STOPS, Pack, TimeIsUp
from hunt_play import SERVERS
from lifting import lifted
from specdiff.fixtures.rig.release import find_release
from specdiff.replay.lift.link import Program
from specdiff.replay.lift.open import program_of


def main() -> int:
    options = _options()
    torch.set_num_threads(1)  # thousands of tiny tensors
    # Hypothesis's own limit of five minutes is too short if every attempt runs a scheduler.
    engine.MAX_SHRINKING_SECONDS = round(60 * options.shrink_minutes)
    with tempfile.TemporaryDirectory() as folder:
        pack = _pack(options, Path(folder))
        began, root = time.monotonic(), options.seed
        with contextlib.suppress(TimeIsUp):
            while pack.found is None and root - options.seed < options.seeds:
                _round(pack, root, options)
                root += 1
        last = root - 1 if pack.found or root - options.seed == options.seeds else root
        print(_summary(pack, options, last, time.monotonic() - began))
    if pack.found is None:
        print("nothing found")
        return 0
    print(leave(pack.found, pack.judge, options.release, f"seed{last}", options.out))
    return 1


def _pack(options: argparse.Namespace, folder: Path) -> Pack:
    release = find_release(options.release)
    servers = tuple(
        server
        for server in SERVERS
        if server.runs_on(release) and (not options.servers or server.name in options.servers)
    )
    judge = HuntJudge(_program(options), frozenset(options.silence))
    deadline = time.monotonic() + 60 * options.minutes
    stops = (*KNOWN_STOPS, *options.known_stop)
    return Pack(options.release, folder, servers, judge, deadline, stops)


def _program(options: argparse.Namespace) -> Program:
    return program_of(lifted(options.against or f"sglang=={options.release}"))


def _round(pack: Pack, root: int, options: argparse.Namespace) -> None:
    machine = type("Hunted", (Machine,), {"pack": pack})
    test = get_state_machine_test(
        machine,
        settings=settings(
            max_examples=options.examples,
            stateful_step_count=options.rules,
            deadline=None,
            database=None,
            print_blob=False,
            verbosity=Verbosity.quiet,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate,) if options.no_shrink else (Phase.generate, Phase.shrink),
        ),
    )
    try:
        seed(root)(test)()
    except Flaky as error:  # a play did not repeat itself, so it cannot be shrunk
        pack.unsteady += 1
        print(f"seed {root} was abandoned: {error}", file=sys.stderr)
    except AssertionError:
        if pack.found is None:  # otherwise `found` holds the last find, which is the smallest
            raise


def _summary(pack: Pack, options: argparse.Namespace, last: int, seconds: float) -> str:
    judge = pack.judge
    plays = ", ".join(f"{name} {count}" for name, count in pack.plays.items())
    laws = ", ".join(f"{name} {count}" for name, count in judge.places.items())
    branches = ", ".join(f"{name} {count}" for name, count in judge.branches.items() if count)
    return (
        f"sglang {options.release}: {pack.plays.total()} scenarios ({plays}) in {seconds:.0f} s, {pack.steps} steps, "
        f"{pack.requests} requests, {judge.compared} values compared, seeds {options.seed} to {last}; "
        f"{pack.passed_over} known stops ignored, {pack.unsteady} seeds abandoned\n"
        f"laws: {laws}\nexercised: {branches}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--release", default="0.5.23")
    parser.add_argument(
        "--against", metavar="PATH", help="compare with this path instead of the release"
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    names = [server.name for server in SERVERS]
    parser.add_argument("--servers", nargs="*", choices=names, metavar="NAME", help=str(names))
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument(
        "--seeds", type=int, default=1 << 30, help="try at most N seeds", metavar="N"
    )
    parser.add_argument(
        "--silence", nargs="*", default=[], metavar="LAW", help="laws that may be broken"
    )
    parser.add_argument(
        "--known-stop",
        nargs="*",
        default=[],
        metavar="TEXT",
        help="ignore schedulers that stop with an error containing this text",
    )
    parser.add_argument("--shrink-minutes", type=float, default=15.0)
    parser.add_argument("--examples", type=int, default=40, help="scenarios per seed")
    parser.add_argument("--rules", type=int, default=40, help="rules per scenario")
    parser.add_argument("--no-shrink", action="store_true", help="do not shrink what is found")
    parser.add_argument("--out", type=Path, default=Path("build/hunt"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
