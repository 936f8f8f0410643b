"""What was done to a recording since it was recorded: a recording made from another says from which and how."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from .errors import RecordingError


@dataclass(frozen=True, slots=True)
class Derived:
    """One step from one recording to the next, as `specdiff shrink` or `specdiff redact` takes it."""

    how: str  # the command: shrink, redact; of `specdiff record`, the option: sample, no-tokens
    source: str  # sha256 of the file it was made from
    says: str  # what was left out or replaced, in a sentence that names no request: it outlives `redact`
    requests_left_out: int  # what the server computed of whole batches is not captured then

    @property
    def replaces_tokens(self) -> bool:
        """`shrink` keeps them on request, and only its sentence says so."""
        if self.how == "shrink":
            return f"; {contents_left_by_shrink(keep_tokens=True)};" not in self.says
        return self.how in ("redact", "no-tokens")


def contents_left_by_shrink(*, keep_tokens: bool) -> str:
    """What `shrink` does to contents, as it says between two semicolons."""
    replaced = "" if keep_tokens else "tokens, ids, the command line and paths replaced, "
    return f"{replaced}what was in routed rows left out"


def derived_to_json(steps: tuple[Derived, ...]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(step) for step in steps]


def derived_from_json(raw: Any) -> tuple[Derived, ...]:
    """Raises RecordingError where it is not what `derived_to_json` makes."""
    names = {field.name for field in dataclasses.fields(Derived)}
    if not isinstance(raw, list) or any(
        not isinstance(item, dict) or item.keys() != names for item in raw
    ):
        raise RecordingError(
            f"/manifest derived: a list of {', '.join(sorted(names))} was expected. "
            "Copy the file again from where it was made."
        )
    return tuple(Derived(**item) for item in raw)
