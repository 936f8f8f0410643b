"""The configuration that `specdiff record` passes to its processes in three environment variables.

`DIR` and `RUN_ID` may also be set by hand; `OPTIONS` holds everything else, as JSON.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .choice import ROWS, Choice

DIR = "SPECDIFF_RECORD_DIR"
RUN_ID = "SPECDIFF_RECORD_RUN_ID"
OPTIONS = "SPECDIFF_RECORD_OPTIONS"  # JSON

DEFAULT_BUFFER_MB = 256
EVERY_STEP = "step"
DURABILITIES = ("50ms", EVERY_STEP)


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration of one recording, as the recorded process sees it."""

    directory: Path
    run_id: str = "unnamed"
    command: tuple[str, ...] = ()
    specdiff_version: str = "unknown"
    buffer_mb: int = DEFAULT_BUFFER_MB  # how much may wait for the writer before steps are dropped
    durability: str = DURABILITIES[0]  # how soon an event must be in the file
    paused: bool = False  # record nothing until a `start` request (see `control`)
    steps: int | None = None  # stop recording after this many decode steps
    seconds: float | None = None  # stop recording after this time
    ring_s: float | None = None  # keep only the last seconds of events (see `ring`)
    all_ranks: bool = False  # also record ranks that keep the same books as another (see `ranks`)
    choice: Choice = field(default_factory=Choice)

    def to_env(self) -> dict[str, str]:
        return {DIR: str(self.directory), RUN_ID: self.run_id, OPTIONS: json.dumps(self.options())}

    @property
    def words(self) -> str:
        """What differs from a plain recording, as options of the command line."""
        given = {
            "--steps": self.steps,
            "--duration": _in_s(self.seconds),
            "--ring": _in_s(self.ring_s),
        }
        parts = [self.choice.words] if self.choice.words else []
        parts += [f"{name} {value}" for name, value in given.items() if value is not None]
        if self.durability != DURABILITIES[0]:
            parts.append(f"--durability {self.durability}")
        if self.buffer_mb != DEFAULT_BUFFER_MB:
            parts.append(f"--buffer-mb {self.buffer_mb}")
        return " ".join(parts + (["--all-ranks"] if self.all_ranks else []))

    def options(self) -> dict[str, Any]:
        """Return all fields except for the folder and the run id, as `with_options` takes them."""
        options = dataclasses.asdict(self)
        return {name: options[name] for name in options if name not in ("directory", "run_id")}


def from_env(env: Mapping[str, str]) -> Config | None:
    """Return the configuration in the environment, or None if no recording was requested.

    Raises ValueError if the options are invalid.
    """
    if not env.get(DIR):
        return None
    config = Config(directory=Path(env[DIR]), run_id=env.get(RUN_ID) or "unnamed")
    return with_options(config, json.loads(env.get(OPTIONS) or "{}"))


def with_options(config: Config, options: Mapping[str, Any]) -> Config:
    """Return `config` with these options, checked. Options that are not named stay as in `config`.

    Raises ValueError naming the option that is unknown or has an invalid value. The options may
    come from another version of specdiff or be written by hand, and the scheduler relies on them.
    """
    choice = options.get("choice", {}) if isinstance(options, Mapping) else None
    if not isinstance(choice, Mapping):
        raise ValueError(f"{OPTIONS}: {options!r}, expected options by name")  # noqa: TRY004 (as any)
    known = {one.name for one in dataclasses.fields(Config)} - {"directory", "run_id"}
    if unknown := sorted(options.keys() - known) + sorted(choice.keys() - _names(Choice)):
        raise ValueError(f"{OPTIONS}: unknown options: {', '.join(unknown)}")
    for name, value in {**options, **choice}.items():
        expected, is_one = _EXPECTED.get(name, ("", None))
        if is_one is not None and not is_one(value):
            raise ValueError(f"{OPTIONS}: {name} is {value!r}, expected {expected}")
    changes = {name: _as_held(value) for name, value in options.items() if name != "choice"}
    chosen = {name: _as_held(value) for name, value in choice.items()}
    return dataclasses.replace(
        config, **changes, choice=dataclasses.replace(config.choice, **chosen)
    )


def _as_held(value: Any) -> Any:
    """JSON has lists where `Config` has tuples."""
    return tuple(value) if isinstance(value, list) else value


def _in_s(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:g}s"


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < float("inf")


def _is_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)


_COUNT = ("a whole number above 0", _is_count)
_SECONDS = ("seconds above 0, or null", lambda value: value is None or _is_time(value))
_YES_OR_NO = ("true or false", lambda value: isinstance(value, bool))
_TEXTS = ("texts", _is_texts)
_EXPECTED: Mapping[str, tuple[str, Callable[[Any], bool]]] = {  # of `Config`, and of its `Choice`
    "command": _TEXTS,
    "specdiff_version": ("a text", lambda value: isinstance(value, str)),
    "buffer_mb": _COUNT,
    "durability": (" or ".join(DURABILITIES), lambda value: value in DURABILITIES),
    "paused": _YES_OR_NO,
    "steps": (f"{_COUNT[0]}, or null", lambda value: value is None or _is_count(value)),
    "seconds": _SECONDS,
    "ring_s": _SECONDS,
    "all_ranks": _YES_OR_NO,
    "one_in": _COUNT,
    "only": _TEXTS,
    "rows": (" or ".join(ROWS), lambda value: value in ROWS),
    "tokens": _YES_OR_NO,
}


def _names(cls: type) -> set[str]:
    return {one.name for one in dataclasses.fields(cls)}
