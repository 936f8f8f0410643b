"""One scenario, played by several versions of sglang."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

from .play_pool import Player, PlayPool
from .play_result import PlayResult


class Plays:
    """The plays of one scenario. Each sglang plays it only once."""

    def __init__(self, scenario: Path, folder: Path, pool: PlayPool) -> None:
        """`scenario` is a recording or a scenario file (TOML) of the rig.

        `folder` receives the recordings: one file per play, or one folder if the play has several
        schedulers. What a failed play left is moved to `folder`/failed.
        """
        self._scenario, self._folder, self._pool = scenario, folder, pool
        self._begun: dict[str, Future[PlayResult]] = {}

    def begin(self, player: Player) -> None:
        """Start the player's play, unless it was started before."""
        if player.code not in self._begun:
            self._begun[player.code] = self._pool.submit(self._scenario, player, self._folder)

    def __call__(self, player: Player) -> PlayResult:
        """Wait for the player's play and return its result. Raises what `write_out` raises."""
        self.begin(player)
        return self._begun[player.code].result()
