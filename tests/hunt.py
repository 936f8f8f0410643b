"""A bug hunt: random scenarios through a release's real scheduler, held against itself lifted and against every law.

    make hunt RELEASE=0.5.23 MINUTES=10
    python tests/hunt.py --release 0.5.23 --minutes 10 --page-size 16 --silence session

Whatever is found is shrunk by Hypothesis to the fewest requests and the smallest numbers, printed as a scenario, and
left under build/hunt/ with its recording. Exit 1 where something was found. Seeds are printed: a hunt can be repeated.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from arena import Arena
from lifting import against_observed
from specdiff.fixtures.rig.errors import RigError
from specdiff.fixtures.rig.script import NUM_DRAFT_TOKENS, RequestScript, Scenario
from specdiff.fixtures.rig.speculation import Speculation
from specdiff.recorders import hdf5
from specdiff.recorders.recording import Recording
from specdiff.replay import spec
from specdiff.replay.columns.shared import Columns
from specdiff.replay.exercised import exercised
from specdiff.replay.laws.check import check
from specdiff.replay.laws.law import State
from specdiff.replay.lift.link import Books
from specdiff.replay.lift.open import books_of
from specdiff.replay.observed import observed


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """Few requests, short: what is wrong with them is wrong with many."""
    requests: list[RequestScript] = []
    for number in range(draw(st.integers(1, 6))):
        if draw(st.integers(0, 3)) == 0:
            requests += _session(draw, f"s{number}")
        else:
            requests.append(_request(draw, f"r{number}", draw(st.integers(0, 12))))
    return Scenario(
        "hunt",
        tuple(requests),
        retract_at=draw(st.frozensets(st.integers(1, 30), max_size=4)),
        capture_experts=True,
    )


def _session(draw: st.DrawFn, name: str) -> list[RequestScript]:
    turns: list[RequestScript] = []
    for turn in range(draw(st.integers(2, 4))):
        arrival = draw(st.integers(0, 3)) if turn else draw(st.integers(0, 12))
        before = turns[-1].rid if turns else ""
        turns.append(_request(draw, f"{name}-{turn}", arrival, session=name, follows=before))
    return turns


def _request(
    draw: st.DrawFn, rid: str, arrival: int, session: str = "", follows: str = ""
) -> RequestScript:
    prompt, limit = draw(st.integers(1, 40)), draw(st.integers(1, 30))
    grouped = not follows and prompt > 4 and draw(st.booleans())
    asked = draw(st.booleans())
    return RequestScript(
        rid,
        arrival,
        prompt,
        draw(st.sampled_from(["g0", "g1"])) if grouped else "",
        draw(st.integers(1, prompt - 1)) if grouped else 0,
        max_new_tokens=limit,
        stop_at=draw(st.none() | st.integers(0, limit)),
        ignore_eos=draw(st.booleans()) and draw(st.booleans()),
        accept=tuple(draw(st.lists(st.integers(1, NUM_DRAFT_TOKENS), max_size=3))),
        # A turn that is aborted in the queue never becomes one.
        abort_at=arrival + draw(st.integers(5, 12)) if draw(st.integers(0, 5)) == 0 else None,
        session=session,
        follows=follows,
        return_routed_experts=asked,
        routed_experts_start_len=draw(st.integers(0, prompt)) if asked and not session else 0,
    )


@dataclass
class Hunt:
    """What was played, and the first thing that was wrong."""

    arena: Arena
    books: Books
    silenced: frozenset[str]
    played: int = 0
    compared: int = 0
    branches: Counter[str] = field(default_factory=Counter)
    found: tuple[Scenario, Recording | None, str] | None = None
    dead: bool = False  # the scheduler raised, and cannot be played on

    def play(self, scenario: Scenario) -> None:
        """Raises AssertionError naming what is wrong."""
        if self.dead:  # nothing can be shrunk any more: only the scenario that did it fails again
            assert self.found is not None and self.found[0] != scenario, self.found
            return
        recording, wrong = None, None
        try:
            recording = self.arena.play(scenario)
        except RigError as error:
            wrong = f"the clients: {error}"
        except Exception as error:  # noqa: BLE001 (whatever it is, it stopped the scheduler)
            self.dead = True
            wrong = f"the scheduler stopped: {type(error).__name__}: {error}"
        if recording is not None:
            wrong = self._wrong(recording)
        if wrong:
            self.found = scenario, recording, wrong
            raise AssertionError(wrong)

    def _wrong(self, recording: Recording) -> str | None:
        self.played += 1
        self.branches.update(exercised(recording))
        if recording.stats is None or recording.stats.exceptions or recording.stats.dropped:
            return f"the recorder: {recording.stats}"
        columns = Columns(recording)
        for outcome in check(columns, observed(columns), self.silenced):
            if outcome.state is State.BROKEN:
                return f"law {outcome.law.name}: {outcome.first}"
        for quantity, difference in against_observed(recording, self.books).items():
            self.compared += difference.num_compared
            if difference.differs.any():
                return f"lifted and observed differ in {quantity.value}"
        return None


def main() -> int:
    options = _options()
    torch.set_num_threads(1)  # thousands of tiny tensors
    path = spec.parse(f"sglang=={options.release}")
    assert isinstance(path, spec.Lifted)
    with tempfile.TemporaryDirectory() as folder:
        speculation = Speculation(page_size=options.page_size)
        arena = Arena(options.release, Path(folder), options.pool_tokens, speculation)
        hunt = Hunt(arena, books_of(path), frozenset(options.silence))
        began, root = time.monotonic(), options.seed
        while hunt.found is None and time.monotonic() - began < 60 * options.minutes:
            _round(hunt, root, options)
            root += 1
    _report(hunt, options, root - 1, time.monotonic() - began)
    return 1 if hunt.found else 0


def _round(hunt: Hunt, root: int, options: argparse.Namespace) -> None:
    @seed(root)
    @settings(
        max_examples=options.examples,
        deadline=None,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate,) if options.no_shrink else (Phase.generate, Phase.shrink),
    )
    @given(scenarios())
    def play(scenario: Scenario) -> None:
        hunt.play(scenario)

    with contextlib.suppress(AssertionError):  # the last thing found is the smallest
        play()


def _report(hunt: Hunt, options: argparse.Namespace, root: int, seconds: float) -> None:
    branches = ", ".join(f"{name} {count}" for name, count in hunt.branches.items() if count)
    print(
        f"sglang {options.release}, page size {options.page_size}, pool {options.pool_tokens}: "
        f"{hunt.played} scenarios in {seconds:.0f} s, {hunt.compared} values compared, "
        f"seeds {options.seed} to {root}\nexercised: {branches}"
    )
    if hunt.found is None:
        print("nothing found")
        return
    scenario, recording, wrong = hunt.found
    name = f"{options.release}-seed{root}"
    options.out.mkdir(parents=True, exist_ok=True)
    text = _as_source(scenario, wrong)
    (options.out / f"{name}.txt").write_text(text + "\n")
    if recording is not None:
        hdf5.save(recording, options.out / f"{name}.h5", force=True)
    print(f"{text}\nleft in {options.out / name}.txt{' and .h5' if recording else ''}")


def _as_source(scenario: Scenario, wrong: str) -> str:
    """Only what differs from the defaults, as the rig's scenarios are written."""
    lines = [f"# {wrong}"]
    for request in scenario.requests:
        said = (
            f"{f.name}={getattr(request, f.name)!r}"
            for f in fields(request)
            if getattr(request, f.name) != f.default
        )
        lines.append(f"RequestScript({', '.join(said)})")
    return "\n".join([*lines, f"retract_at={sorted(scenario.retract_at)}"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--release", default="0.5.23")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--page-size", type=int, default=1)
    parser.add_argument("--pool-tokens", type=int, default=2600)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--silence", nargs="*", default=[], metavar="LAW")
    parser.add_argument("--examples", type=int, default=150, help="scenarios of one seed")
    parser.add_argument("--no-shrink", action="store_true", help="leave what is found as it is")
    parser.add_argument("--out", type=Path, default=Path("build/hunt"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
