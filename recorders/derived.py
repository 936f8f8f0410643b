"""The steps by which a recording was made from another: from which file, and how."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, get_type_hints

from .errors import RecordingError


@dataclass(frozen=True, slots=True)
class Derived:
    """One step from one recording to the next, e.g. by `specdiff shrink` or `specdiff redact`."""

    how: str  # the command (shrink, redact, ...) or the option of `specdiff record` (sample, no-tokens)
    source: str  # sha256 of the file it was made from
    # What was left out or replaced, in words. It must not name a request: `redact` keeps it.
    description: str
    requests_left_out: int  # if not 0, the server's values for whole batches are not captured
    tokens_replaced: bool  # whether token ids are no longer the server's own


_TYPES = get_type_hints(Derived)


def derived_to_json(steps: tuple[Derived, ...]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(step) for step in steps]


def derived_from_json(raw: Any) -> tuple[Derived, ...]:
    """The inverse of `derived_to_json`. Raises RecordingError if `raw` does not have that form."""
    if not isinstance(raw, list) or not all(_is_step(item) for item in raw):
        expected = ", ".join(f"{name} ({kind.__name__})" for name, kind in _TYPES.items())
        raise RecordingError(
            f"/manifest derived: found {repr(raw)[:100]}, expected a list of objects with {expected}. "
            "Copy the file again from where it was made, or make it again with this specdiff."
        )
    return tuple(Derived(**item) for item in raw)


def _is_step(item: Any) -> bool:
    return isinstance(item, dict) and {key: type(one) for key, one in item.items()} == _TYPES
