"""One play of the hunt: the messages sent to a live scheduler, step by step.

It can be written as a scenario that replays it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from arena import Arena, Block, PlayedBlock, Stopped
from specdiff.fixtures.rig.messages import CONTROLS
from specdiff.fixtures.rig.release import Release
from specdiff.fixtures.rig.script import RequestScript, Scenario
from specdiff.fixtures.rig.server_args import server_args
from specdiff.fixtures.rig.speculation import Speculation


@dataclass(frozen=True, slots=True)
class Server:
    """The settings of a scheduler, which sglang keeps as long as the process lives."""

    name: str
    pool_tokens: int
    speculation: Speculation = field(default_factory=Speculation)
    settings: Mapping[str, Any] = field(default_factory=dict)
    conservativeness: float = 0.05
    since: str = "0.5.9"

    def server_args(self) -> dict[str, Any]:
        return {
            **server_args(
                pool_tokens=self.pool_tokens,
                conservativeness=self.conservativeness,
                sessions=True,
                speculation=self.speculation,
            ),
            **self.settings,
        }

    def scenario(self, requests: tuple[RequestScript, ...], **told: Any) -> Scenario:
        settings = {"enable_streaming_session": True, **self.settings}
        return self.speculation.put_into(
            Scenario(
                "hunt",
                requests,
                pool_tokens=self.pool_tokens,
                conservativeness=self.conservativeness,
                capture_experts=True,
                settings=settings,
                **told,
            )
        )

    def runs_on(self, release: Release) -> bool:
        return release.is_at_least(self.since)


_PRIORITY = {"enable_priority_scheduling": True, "schedule_policy": "fcfs"}

SERVERS = (
    Server("roomy", 2600),
    Server("tight", 200),
    Server("pages of 16, chunks", 512, Speculation(page_size=16), {"chunked_prefill_size": 32}),
    Server("pages of 64", 1024, Speculation(page_size=64)),
    Server("topk 4", 320, Speculation(topk=4), since="0.5.13"),
    Server("tree on pages", 1536, Speculation(topk=4, page_size=16), since="0.5.13"),
    Server("priority", 200, settings=_PRIORITY),
    Server("sliding window", 320, Speculation(model="gpt-oss")),
    Server("sliding window on pages", 1024, Speculation(page_size=16, model="gpt-oss")),
    Server("linear attention", 320, Speculation(model="qwen3-next")),
)
"""Several page sizes, and pools so small that sglang retracts on its own.

The simplest server comes first.
"""


class HuntPlay:
    """Counts steps as scenarios do: a later turn's steps start at the answer to the one before."""

    def __init__(self, server: Server, arena: Arena) -> None:
        self.server, self._arena = server, arena
        self.now = 0
        self.scripts: dict[str, RequestScript] = {}
        self.answered: dict[str, int] = {}
        self.last_turn: dict[str, str] = {}  # of every open session
        self.retract_at: set[int] = set()
        self.controls: dict[str, set[int]] = {name: set() for name in CONTROLS}  # their steps
        self.paused = False
        self._new: list[str] = []
        self._aborts: list[str] = []
        self._closes: list[str] = []
        arena.begin()

    # -- what arrives in the next step

    def ask(self, script: RequestScript) -> None:
        """The request arrives in this step. In a session, it is the next turn."""
        if script.session:
            before = self.last_turn.get(script.session, "")
            script = replace(script, follows=before)
            self.last_turn[script.session] = script.rid
        self.scripts[script.rid] = script
        self._note(script.rid, arrival=self._count(script.rid))
        self._new.append(script.rid)

    def abort(self, rid: str) -> None:
        self._note(rid, abort_at=self._count(rid))
        self._aborts.append(rid)

    def close(self, session: str) -> None:
        rid = self.last_turn.pop(session)
        self._note(rid, close_at=self._count(rid))
        self._closes.append(session)

    def retract(self) -> None:
        self.retract_at.add(self.now)

    def control(self, name: str) -> None:
        """Send one of a trainer's commands, by its name in `messages.CONTROLS`."""
        self.controls[name].add(self.now)
        if name in ("pause", "pause_retract", "continue"):
            self.paused = name != "continue"

    # -- the state

    @property
    def waiting(self) -> list[str]:
        return [rid for rid in self.scripts if rid not in self.answered]

    @property
    def abortable(self) -> list[str]:
        return [rid for rid in self.waiting if self.scripts[rid].abort_at is None]

    @property
    def ready(self) -> list[str]:
        """Open sessions whose last turn is answered, so that the next one may come."""
        return [name for name, rid in self.last_turn.items() if rid in self.answered]

    def scenario(self) -> Scenario:
        """Return the scenario.

        A paused scheduler continues at the end. Raises RigError if no request was sent.
        """
        controls = {name: frozenset(steps) for name, steps in self.controls.items()}
        if self.paused:
            controls["continue"] |= {self.now}
        return self.server.scenario(
            tuple(self.scripts.values()),
            retract_at=frozenset(self.retract_at),
            **{f"{name}_at": steps for name, steps in controls.items()},
        )

    # -- playing

    def step(self, turns: int) -> PlayedBlock | Stopped:
        asks = [self.scripts[rid] for rid in self._new]
        order = list(self.answered)
        # In the rig's order: first requests that follow none, then turns in the order in which the
        # turns before them were answered.
        asks.sort(key=lambda script: order.index(script.follows) if script.follows else -1)
        block = Block(
            turns,
            tuple(script.session for script in asks if script.session and not script.follows),
            tuple(asks),
            tuple(self._aborts),
            tuple(self._closes),
            frozenset(name for name, steps in self.controls.items() if self.now in steps),
            self.now in self.retract_at,
        )
        self._new, self._aborts, self._closes = [], [], []
        self.now += turns
        return self._told(self._arena.play(block))

    def end(self) -> PlayedBlock | Stopped:
        return self._told(self._arena.play(None))

    def _told(self, told: PlayedBlock | Stopped) -> PlayedBlock | Stopped:
        if isinstance(told, PlayedBlock):
            self.answered = dict(told.answered)
        return told

    def _note(self, rid: str, **what: Any) -> None:
        self.scripts[rid] = replace(self.scripts[rid], **what)

    def _count(self, rid: str) -> int:
        before = self.scripts[rid].follows
        return self.now - (self.answered[before] + 1 if before else 0)
