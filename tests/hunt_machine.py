"""The hunt's state machine: what clients and scarce memory can do, in any order.

Each step is judged.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import reject
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from arena import Stopped
from hunt_judge import Wrong, wrong_answers
from hunt_pack import FoundBug, Pack
from hunt_play import HuntPlay
from specdiff.fixtures.rig.release import find_release
from specdiff.fixtures.rig.script import RequestScript
from specdiff.fixtures.rig.tokens import NUM_DRAFT_TOKENS
from specdiff.recorders.build import build

RIDS = [chr(ord("a") + i) for i in range(26)]
"""No id begins with another: sglang aborts every request whose id begins with the given one."""
END_STEPS, LAST_STEPS = 8, 6
CLOSE_AFTER, ABORT_AFTER, GIVE_UP_AFTER = 5, 25, 40
"""Numbers of blocks of END_STEPS.

The longest request takes about 4, but in a small pool many wait for their turn.
"""


@st.composite
def requests(draw: st.DrawFn, in_session: bool = False, first: bool = False) -> RequestScript:
    """Draw a short request: a bug that long requests show, short ones show too.

    The request id is assigned later.
    """
    # A first turn of one token that is retracted stops the scheduler: docs/findings/retracted-turn-of-one-token.md.
    prompt, limit = draw(st.integers(2 if first else 1, 40)), draw(st.integers(1, 30))
    grouped = (first or not in_session) and prompt > 4 and draw(st.booleans())
    asked = draw(st.booleans())
    return RequestScript(
        "unnamed",
        0,
        prompt,
        draw(st.sampled_from(["g0", "g1"])) if grouped else "",
        draw(st.integers(1, prompt - 1)) if grouped else 0,
        max_new_tokens=limit,
        stop_at=draw(st.none() | st.integers(0, limit)),
        ignore_eos=draw(st.booleans()) and draw(st.booleans()),
        accept=tuple(draw(st.lists(st.integers(1, NUM_DRAFT_TOKENS), max_size=3))),
        priority=draw(st.none() | st.integers(0, 2)),
        return_routed_experts=asked,
        routed_experts_start_len=draw(st.integers(0, prompt)) if asked and not in_session else 0,
    )


_which = st.integers(0, 7)
_then = st.integers(0, 6)


class Machine(RuleBasedStateMachine):
    """Each rule adds something to the next step and then plays `then` steps.

    If `then` is 0, the next rule adds to the same step.
    """

    pack: Pack
    play: HuntPlay
    journal: Path | None = None
    over = False
    judged = 0  # bytes of the journal that were judged and are fine

    @initialize(which=_which)
    def start(self, which: int) -> None:
        self.play = self.pack.play(which)

    @precondition(lambda self: len(self.play.scripts) < len(RIDS))
    @rule(script=requests(), then=_then)
    def ask(self, script: RequestScript, then: int) -> None:
        self._ask(script, then)

    @precondition(lambda self: len(self.play.scripts) < len(RIDS))
    @rule(script=requests(in_session=True, first=True), then=_then)
    def open(self, script: RequestScript, then: int) -> None:
        self._ask(script, then, session=f"s{len(self.play.scripts)}")

    @precondition(lambda self: self.play.ready and len(self.play.scripts) < len(RIDS))
    @rule(script=requests(in_session=True), which=_which, then=_then)
    def next_turn(self, script: RequestScript, which: int, then: int) -> None:
        self._ask(script, then, session=_pick(self.play.ready, which))

    @precondition(lambda self: self.play.abortable)
    @rule(which=_which, then=_then)
    def abort(self, which: int, then: int) -> None:
        self.play.abort(_pick(self.play.abortable, which))
        self._step(then)

    @precondition(lambda self: self.play.last_turn)
    @rule(which=_which, then=_then)
    def close(self, which: int, then: int) -> None:
        self.play.close(_pick(list(self.play.last_turn), which))
        self._step(then)

    @precondition(lambda self: self.play.waiting)
    @rule(then=_then)
    def retract(self, then: int) -> None:
        self.play.retract()
        self._step(then)

    @precondition(lambda self: self.play.scripts and (self.play.paused or not self.play.waiting))
    @rule(then=_then)
    def flush(self, then: int) -> None:
        self._control("flush", then)

    @precondition(lambda self: self.play.scripts)
    @rule(retract=st.booleans(), then=_then)
    def pause(self, retract: bool, then: int) -> None:
        self._control("pause_retract" if retract else "pause", then)

    @precondition(lambda self: self.play.paused)
    @rule(then=_then)
    def go_on(self, then: int) -> None:
        self._control("continue", then)

    @precondition(lambda self: self.play.scripts and find_release(self.pack.release).names_weights)
    @rule(then=_then)
    def new_weights(self, then: int) -> None:
        self._control("weights", then)

    @precondition(lambda self: self.play.waiting)
    @rule(then=_then)
    def abort_all(self, then: int) -> None:
        self._control("abort_all", then)

    @precondition(lambda self: self.play.scripts)
    @rule(turns=st.integers(1, 12))
    def step(self, turns: int) -> None:
        self._step(turns)

    @invariant()
    def the_books_are_right(self) -> None:
        """Judge everything that is recorded so far."""
        size = self.journal.stat().st_size if self.journal and not self.over else 0
        if size > self.judged:
            self.judged = size
            self._judge()

    def teardown(self) -> None:
        """Wait for all answers, close all sessions, and let the idle scheduler check its pools."""
        if self.over or not hasattr(self, "play") or not self.play.scripts:
            return
        self._answer_all()
        for session in list(self.play.last_turn):
            self.play.close(session)
        self._step(LAST_STEPS)
        told = self.play.end()
        if isinstance(told, Stopped):
            self._stopped(told)
        else:
            self.pack.count(self.play)
            self._judge(whole=True)
            if wrong := wrong_answers(self.play.scenario(), told.answers):
                self._found(wrong)

    # -- how the rules do it

    def _ask(self, script: RequestScript, then: int, **more: Any) -> None:
        self.play.ask(replace(script, rid=RIDS[len(self.play.scripts)], **more))
        self._step(then)

    def _control(self, name: str, then: int) -> None:
        self.play.control(name)
        self._step(then)

    def _answer_all(self) -> None:
        """Wait until every request is answered.

        Idle sessions may fill a small pool, so close them first, then abort.
        """
        if self.play.paused:
            self._control("continue", 1)
        for block in range(GIVE_UP_AFTER):
            if not self.play.waiting:
                return
            if block >= CLOSE_AFTER:
                for session in self.play.ready:
                    self.play.close(session)
            if block == ABORT_AFTER:
                for rid in self.play.abortable:
                    self.play.abort(rid)
            self._step(END_STEPS)
            self.the_books_are_right()
        self._found(Wrong("no answer", f"{self.play.waiting} after {self.play.now} steps"))

    def _step(self, turns: int) -> None:
        if not turns:
            return
        told = self.play.step(turns)
        if isinstance(told, Stopped):
            self._stopped(told)
        else:
            self.journal = told.journal

    def _stopped(self, stopped: Stopped) -> None:
        self.over = True
        if self.pack.passes_over(stopped.why):
            reject()
        self.journal = stopped.journal
        self._found(Wrong("the scheduler stopped", stopped.why))

    def _judge(self, whole: bool = False) -> None:
        assert self.journal is not None
        if wrong := self.pack.judge.judge(build(self.journal), whole=whole):
            self._found(wrong)

    def _found(self, wrong: Wrong) -> None:
        self.over = True
        recording = build(self.journal) if self.journal else None
        self.pack.found = FoundBug(self.play.scenario(), recording, wrong)
        raise self.pack.error(wrong)


def _pick(among: list[str], which: int) -> str:
    return among[which % len(among)]
