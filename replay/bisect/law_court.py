"""What a version of sglang is by a law: good where the scenario, played by its whole scheduler, keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ...recorders import hdf5
from ...recorders.errors import NoVerdictError, RecordingError
from ..laws.ask import ask
from ..laws.law import Law, Outcome, State
from ..lift.git import NoSourceError, commit_of
from ..spec import Lifted, Observed, Origin
from .commits import run_git
from .judge import Finding, Judged
from .plays import Player, Plays
from .trees import root_of, write_out

_FINDINGS = {State.BROKEN: Finding.BAD, State.NOT_EXERCISED: Finding.SKIPPED}
_GRAVEST = (State.BROKEN, State.KNOWN, State.HOLDS, State.NOT_EXERCISED)


class LawCourt:
    """A `search.Court`. Commits of one source tree, and one release, play once."""

    def __init__(self, law: Law, plays: Plays) -> None:
        self._law, self._plays = law, plays
        self._found: dict[str, Outcome | str] = {}  # by `Player.code`; or why there is none

    def __call__(self, path: Lifted) -> Judged:
        """Raises UsageError where there is no such commit, NoSourceError where it holds no sglang."""
        player = _player(path)
        if player.code not in self._found:
            self._found[player.code] = self._judge(player)
        found = self._found[player.code]
        if isinstance(found, str):
            return Judged(path, Finding.SKIPPED, player.code, found)
        finding = _FINDINGS.get(found.state, Finding.GOOD)
        return Judged(path, finding, player.code, found.idle, found)

    def ahead(self, paths: Sequence[Lifted]) -> None:
        for path in paths:
            with suppress(NoSourceError):  # said where it is judged
                self._plays.begin(_player(path))

    def why_not_good(self, end: Lifted) -> str:
        return f"it breaks the law {self._law.name}, too. A good end is one that keeps it."

    def _judge(self, player: Player) -> Outcome | str:
        try:
            played = self._plays(player)
            return played.why or self._ask(played.recordings)
        except (NoVerdictError, RecordingError) as error:
            return str(error)

    def _ask(self, recordings: Sequence[Path]) -> Outcome:
        """Of several schedulers: the gravest outcome, and the counts of all."""
        found = [ask(self._law, hdf5.load(path), Observed()) for path in recordings]
        gravest = min(found, key=lambda one: _GRAVEST.index(one.state))
        checked = sum(one.num_checked for one in found)
        return replace(
            gravest, num_checked=checked, num_broken=sum(one.num_broken for one in found)
        )


def _player(path: Lifted) -> Player:
    if path.origin is Origin.RELEASE:
        return Player(path.where, f"sglang-{path.where}", path.where, lambda _: None)
    if path.origin is Origin.TREE:
        return Player(path.where, "sglang", str(Path(path.where).resolve()), lambda _: None)
    repo = Path(path.repo or ".")
    commit = commit_of(repo, path.where)
    root = root_of(repo, str(path), commit)
    tree = run_git(repo, "rev-parse", f"{commit}:{root}").strip()
    return Player(tree, f"sglang-{commit[:12]}", None, lambda folder: write_out(repo, tree, folder))
