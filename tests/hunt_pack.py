"""What the plays of a hunt share: the schedulers, the judge, the counts, and what was found."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from arena import Arena
from hunt_judge import HuntJudge, Wrong
from hunt_play import HuntPlay, Server
from specdiff.fixtures.rig.script import Scenario
from specdiff.recorders.recording import Recording

KNOWN_STOPS = (
    # docs/findings/retracted-turn-of-one-token.md
    "a reused row must carry allocated KV",
    "reusing request must be chunked or have committed KV",
)


@dataclass(frozen=True, slots=True)
class FoundBug:
    scenario: Scenario
    recording: Recording | None
    wrong: Wrong


class TimeIsUp(KeyboardInterrupt):
    """A KeyboardInterrupt, because Hypothesis does not catch that."""


@dataclass
class Pack:
    release: str
    folder: Path
    servers: tuple[Server, ...]
    judge: HuntJudge
    deadline: float  # of time.monotonic(); a find may still be shrunk after it
    known_stops: tuple[str, ...] = KNOWN_STOPS
    plays: Counter[str] = field(default_factory=Counter)  # by server
    steps: int = 0
    requests: int = 0
    passed_over: int = 0
    unsteady: int = 0  # seeds
    found: FoundBug | None = None
    _arenas: dict[str, Arena] = field(default_factory=dict)
    _errors: dict[str, type[AssertionError]] = field(default_factory=dict)

    def play(self, which: int) -> HuntPlay:
        """Start a play on a server. Raises TimeIsUp."""
        if self.found is None and time.monotonic() > self.deadline:
            raise TimeIsUp
        server = self.servers[which % len(self.servers)]
        if server.name not in self._arenas:
            folder = self.folder / server.name.replace(" ", "-")
            self._arenas[server.name] = Arena(self.release, folder, server.server_args())
        return HuntPlay(server, self._arenas[server.name])

    def count(self, play: HuntPlay) -> None:
        self.plays[play.server.name] += 1
        self.steps += play.now
        self.requests += len(play.scripts)

    def passes_over(self, why: str) -> bool:
        known = any(text in why for text in self.known_stops)
        self.passed_over += known
        return known

    def error(self, wrong: Wrong) -> AssertionError:
        """Return an error with a type for each bug. Hypothesis tells bugs apart by type."""
        kind = wrong.what + (wrong.numbers if "stopped" in wrong.what else "")
        kind = "".join(letter for letter in kind if not letter.isdigit())
        return self._errors.setdefault(kind, type("Found", (AssertionError,), {}))(str(wrong))
