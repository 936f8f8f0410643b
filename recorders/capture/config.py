"""What `specdiff record` asks of the processes it starts: two environment variables that anyone may set, and one with the rest."""

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
    """One `specdiff record`, as its processes see it."""

    directory: Path
    run_id: str = "unnamed"
    command: tuple[str, ...] = ()
    specdiff_version: str = "unknown"
    buffer_mb: int = DEFAULT_BUFFER_MB  # how much may wait for the writer before steps are dropped
    durability: str = DURABILITIES[0]  # how long what is handed over may stay out of the file
    paused: bool = False  # nothing is recorded until someone asks for it (see `control`)
    steps: int | None = None  # decode steps after which recording stops
    seconds: float | None = None  # likewise
    ring_s: float | None = (
        None  # keep only the last seconds, until someone asks for them (see `ring`)
    )
    all_ranks: bool = False  # those too that keep the books of another (see `ranks`)
    choice: Choice = field(default_factory=Choice)

    def to_env(self) -> dict[str, str]:
        return {DIR: str(self.directory), RUN_ID: self.run_id, OPTIONS: json.dumps(self.options())}

    def options(self) -> dict[str, Any]:
        """Everything but where to and which run: what `with_options` takes."""
        options = dataclasses.asdict(self)
        return {name: options[name] for name in options if name not in ("directory", "run_id")}


def from_env(env: Mapping[str, str]) -> Config | None:
    """None where no recording was asked for; raises ValueError where it was asked for wrongly."""
    if not env.get(DIR):
        return None
    config = Config(directory=Path(env[DIR]), run_id=env.get(RUN_ID) or "unnamed")
    return with_options(config, json.loads(env.get(OPTIONS) or "{}"))


def with_options(config: Config, options: Mapping[str, Any]) -> Config:
    """Raises ValueError naming the option that is unknown, or the value that is none: who asks may be another version, or a
    person, and the scheduler is to trust what it finds here."""
    choice = options.get("choice", {}) if isinstance(options, Mapping) else None
    if not isinstance(choice, Mapping):
        raise ValueError(f"{OPTIONS}: {options!r}, expected options by name")  # noqa: TRY004 (as any)
    known = {one.name for one in dataclasses.fields(Config)} - {"directory", "run_id"}
    if unknown := sorted(options.keys() - known) + sorted(choice.keys() - _names(Choice)):
        raise ValueError(f"{OPTIONS}: unknown: {', '.join(unknown)}")
    for name, value in {**options, **choice}.items():
        expected, is_one = _EXPECTED.get(name, ("", None))
        if is_one is not None and not is_one(value):
            raise ValueError(f"{OPTIONS}: {name} is {value!r}, expected {expected}")
    told = {**options, "command": tuple(options.get("command", ()))}
    told["choice"] = Choice(**{**choice, "only": tuple(choice.get("only", ()))})
    return dataclasses.replace(config, **told)


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
