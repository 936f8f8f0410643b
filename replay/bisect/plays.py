"""A scenario played by one sglang after the other."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

from .play_result import Played
from .playhouse import Player, Playhouse


class Plays:
    """Of one scenario; each sglang plays it but once."""

    def __init__(self, scenario: Path, folder: Path, house: Playhouse) -> None:
        """`scenario`: a recording, or a TOML file of the rig's. `folder`: for what is recorded, a file each, a folder where
        there are several schedulers; what came to no good end is put under `failed`."""
        self._scenario, self._folder, self._house = scenario, folder, house
        self._begun: dict[str, Future[Played]] = {}

    def begin(self, player: Player) -> None:
        if player.code not in self._begun:
            self._begun[player.code] = self._house.put_on(self._scenario, player, self._folder)

    def __call__(self, player: Player) -> Played:
        """Raises what `write_out` raises."""
        self.begin(player)
        return self._begun[player.code].result()
