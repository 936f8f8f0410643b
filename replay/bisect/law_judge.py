"""Judge versions of sglang by a law: good means that the law holds when the version's whole
scheduler plays the scenario."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ...recorders import hdf5
from ...recorders.errors import NoVerdictError, RecordingError, UsageError
from ...recorders.recording import Recording
from ..laws.check_one import check_law
from ..laws.law import Law, LawOutcome, State
from ..lift.git import NoSourceError, commit_of
from ..lift.releases import RELEASES
from ..spec import Lifted, Observed, Origin
from .commits import run_git
from .judge import Finding, JudgedCandidate
from .play_pool import Player
from .play_result import PlayResult
from .plays import Plays
from .trees import release_before, root_of, write_out

_FINDINGS = {State.BROKEN: Finding.BAD, State.NOT_EXERCISED: Finding.SKIPPED}
_GRAVEST = (State.BROKEN, State.KNOWN, State.HOLDS, State.NOT_EXERCISED)


class LawJudge:
    """Judges candidates by one law; implements `search.CandidateJudge`.

    Each release plays once. Commits with the same source tree share one play.
    """

    def __init__(self, law: Law, plays: Plays) -> None:
        self._law, self._plays = law, plays
        # by `Player.code`: the outcome and a remark on the play, or the reason why there is no outcome
        self._found: dict[str, tuple[LawOutcome, str | None] | str] = {}

    def __call__(self, path: Lifted) -> JudgedCandidate:
        """Judge one candidate.

        Raises UsageError if there is no such commit, NoSourceError if the commit has no sglang.
        """
        player = _player(path)
        if player.code not in self._found:
            self._found[player.code] = self._judge(player)
        found = self._found[player.code]
        if isinstance(found, str):
            return JudgedCandidate(path, Finding.SKIPPED, player.code, found)
        outcome, remark = found
        finding = _FINDINGS.get(outcome.state, Finding.GOOD)
        return JudgedCandidate(
            path, finding, player.code, outcome.why_not_exercised or remark, outcome
        )

    def prefetch(self, paths: Sequence[Lifted]) -> None:
        for path in paths:
            with suppress(NoSourceError):  # reported when the candidate is judged
                self._plays.begin(_player(path))

    def why_not_good(self, end: Lifted) -> str:
        return f"it breaks the law {self._law.name} too. Choose a good end that keeps it."

    def _judge(self, player: Player) -> tuple[LawOutcome, str | None] | str:
        try:
            played = self._plays(player)
            if played.why is not None:
                return played.why
            return self._ask(played.recordings), _remark(played)
        except (NoVerdictError, RecordingError) as error:
            return str(error)

    def _ask(self, recordings: Sequence[Path]) -> LawOutcome:
        """Return the outcome over all schedulers: the gravest state, and the summed counts."""
        found = [check_law(self._law, _whole(path), Observed()) for path in recordings]
        gravest = min(found, key=lambda one: _GRAVEST.index(one.state))
        checked = sum(one.num_checked for one in found)
        return replace(
            gravest, num_checked=checked, num_broken=sum(one.num_broken for one in found)
        )


def check_known(path: Lifted) -> None:
    """Raise UsageError for a release that the rig cannot play."""
    if path.origin is Origin.RELEASE and path.where not in RELEASES:
        raise UsageError(
            f"{path}: the rig cannot play this release. It plays {', '.join(RELEASES)}."
        )


def _whole(path: Path) -> Recording:
    """Load a recording. Raises NoVerdictError if events may be missing from it.

    A law that holds in the part that was recorded may be broken in the missing part.
    """
    recording = hdf5.load(path)
    stats = recording.stats
    why = recording.damage
    if stats is None or not stats.closed:
        why = why or "the recorder did not finish"
    elif stats.dropped or stats.exceptions:
        why = (
            why
            or f"{stats.dropped} events were dropped, and the recorder raised {stats.exceptions} exceptions"
        )
    if why is not None:
        raise NoVerdictError(f"its recording is incomplete: {why}")
    return recording


def _remark(played: PlayResult) -> str | None:
    if not played.ended_differently:
        return None
    count, first = len(played.ended_differently), played.ended_differently[0]
    return f"ended differently: {first}" + (f" (and {count - 1} more)" if count > 1 else "")


def _player(path: Lifted) -> Player:
    """Return the player for a release, a source tree or a commit."""
    if path.origin is Origin.RELEASE:
        return Player(path.where, f"sglang-{path.where}", path.where, lambda _: None)
    if path.origin is Origin.TREE:
        return Player(path.where, "sglang", str(Path(path.where).resolve()), lambda _: None)
    repo = Path(path.repo or ".")
    commit = commit_of(repo, path.where)
    root = root_of(repo, str(path), commit)
    tree = run_git(repo, "rev-parse", f"{commit}:{root}").strip()
    title, like = f"sglang-{commit[:12]}", release_before(repo, commit)
    return Player(tree, title, None, lambda folder: write_out(repo, tree, folder), like)
