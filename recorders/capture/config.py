"""What `specdiff record` asks of the processes it starts, passed on in environment variables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DIR = "SPECDIFF_RECORD_DIR"
RUN_ID = "SPECDIFF_RECORD_RUN_ID"
COMMAND = "SPECDIFF_RECORD_COMMAND"
VERSION = "SPECDIFF_RECORD_VERSION"
BUFFER = "SPECDIFF_RECORD_BUFFER_MB"
DURABILITY = "SPECDIFF_RECORD_DURABILITY"

DEFAULT_BUFFER_MB = 256
EVERY_STEP = "step"
DURABILITIES = ("50ms", EVERY_STEP)


@dataclass(frozen=True, slots=True)
class Config:
    """One `specdiff record`, as its processes see it."""

    directory: Path
    run_id: str
    command: tuple[str, ...]
    specdiff_version: str
    buffer_mb: int  # how much may wait for the writer before events are dropped
    durability: str = DURABILITIES[0]  # how long what is handed over may stay out of the file

    def to_env(self) -> dict[str, str]:
        return {
            DIR: str(self.directory),
            RUN_ID: self.run_id,
            COMMAND: json.dumps(self.command),
            VERSION: self.specdiff_version,
            BUFFER: str(self.buffer_mb),
            DURABILITY: self.durability,
        }


def from_env(env: Mapping[str, str]) -> Config | None:
    """None where no recording was asked for."""
    if not env.get(DIR):
        return None
    return Config(
        directory=Path(env[DIR]),
        run_id=env.get(RUN_ID) or "unnamed",
        command=tuple(json.loads(env.get(COMMAND) or "[]")),
        specdiff_version=env.get(VERSION) or "unknown",
        buffer_mb=int(env.get(BUFFER) or DEFAULT_BUFFER_MB),
        durability=_durability(env.get(DURABILITY) or DURABILITIES[0]),
    )


def _durability(asked: str) -> str:
    if asked not in DURABILITIES:
        raise ValueError(f"{DURABILITY}={asked}: expected {' or '.join(DURABILITIES)}")
    return asked
