"""What `make fidelity` records of each release. Recordings are made once and then reused."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from specdiff.fixtures.rig.release import RELEASES
from specdiff.replay.quantity import Quantity

ROOT = Path(__file__).parent.parent
MOST_RUNS = 50
"""In one recording.

A process takes 6 s to import sglang and half a second per run, so more runs cost less each.
"""


@dataclass(frozen=True, slots=True)
class Extra:
    """What each release from `since` on also plays.

    It has a quantity that plain random runs do not have, or other server options.
    """

    compares: Quantity | None
    since: str
    scenario: str
    runs: int
    flags: tuple[str, ...] = ()


EXTRAS = (
    Extra(Quantity.INDEXER_TOPK, "0.5.12", "random", 10, ("--indexer",)),
    Extra(Quantity.SESSION_COMMITTED, "0.5.10", "sessions-random", 10),
    Extra(None, "0.5.9", "random", 5, ("--algorithm", "STANDALONE", "--page-size", "16")),
    Extra(None, "0.5.9", "random", 5, ("--page-size", "64")),
    Extra(None, "0.5.14", "random", 5, ("--algorithm", "DFLASH")),
    Extra(None, "0.5.16", "random", 5, ("--algorithm", "DSPARK")),
    Extra(None, "0.5.14", "random", 5, ("--algorithm", "NGRAM", "--topk", "4")),
    Extra(None, "0.5.13", "random", 5, ("--topk", "4", "--page-size", "16")),
    Extra(None, "0.5.9", "random", 2, ("--model", "gpt-oss")),
    Extra(None, "0.5.9", "random", 2, ("--model", "qwen3-next")),
    Extra(None, "0.5.9", "chunked-random", 3),
    Extra(None, "0.5.10", "random", 3, ("--paused",)),
    Extra(None, "0.5.19", "mixed-random", 3),
    Extra(None, "0.5.9", "stop-random", 3),
    Extra(None, "0.5.9", "grammar-random", 3),
)
"""The quantity of an extra is expected only of the releases that play it.

All other quantities are expected of all.
"""


@dataclass(frozen=True, slots=True)
class FidelityPlay:
    """One recording: the seeds seed, seed + 1, ... of a scenario, played on one release."""

    release: str
    scenario: str
    seed: int
    runs: int
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        flags = (flag.strip("-") for flag in self.flags)
        return "-".join((self.scenario, f"{self.seed}x{self.runs}", *flags))

    @property
    def command(self) -> tuple[str, ...]:
        rig = (sys.executable, "-m", "specdiff.fixtures.rig", "--sglang", self.release)
        seeds = ("--seed", str(self.seed), "--runs", str(self.runs))
        return (*rig, "--scenario", self.scenario, *seeds, *self.flags)


def plays(releases: Sequence[str], first: int, seeds: int) -> Iterator[FidelityPlay]:
    """Yield all plays of one release before any of the next."""
    for release in releases:
        for seed in range(first, first + seeds, MOST_RUNS):
            yield FidelityPlay(release, "random", seed, min(MOST_RUNS, first + seeds - seed))
        for extra in EXTRAS:
            if has(release, extra):
                yield FidelityPlay(release, extra.scenario, 1, extra.runs, extra.flags)


def has(release: str, extra: Extra) -> bool:
    return RELEASES.index(release) >= RELEASES.index(extra.since)


def expected(release: str) -> list[Quantity]:
    """Return the quantities that must have been compared before a release counts as judged."""
    absent = {extra.compares for extra in EXTRAS if not has(release, extra)}
    return [quantity for quantity in Quantity if quantity not in absent]


def recordings(wanted: Sequence[FidelityPlay], folder: Path, jobs: int) -> Iterator[Path]:
    """Yield the recordings in the wanted order, while the next ones are being made.

    Raises RuntimeError if one fails.
    """
    pool = ThreadPoolExecutor(jobs)
    try:
        yield from pool.map(lambda play: recorded(play, folder), wanted)
    finally:
        pool.shutdown(cancel_futures=True)


def recorded(play: FidelityPlay, folder: Path) -> Path:
    """Return the recording of this play. It is made if it does not exist yet."""
    home = folder / _recorder() / play.release / play.name
    if found := next(iter(home.glob("*.h5")), None):
        return found
    command = [sys.executable, "-m", "specdiff.cli", "record", "-o", str(home), "--", *play.command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        for path in home.glob("*.h5"):  # a failed run's: it must not be reused
            path.unlink()
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    print(f"recorded {play.release} {play.name}", file=sys.stderr, flush=True)
    return next(home.glob("*.h5"))


@cache
def _recorder() -> str:
    """Return a hash of the recorder's and the rig's sources.

    Recordings made with other sources are not reused.
    """
    digest = hashlib.sha256()
    for folder in ("recorders", "fixtures/rig"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]
