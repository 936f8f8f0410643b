"""The steps by which a recording was made from another: from which file, and how."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from .errors import RecordingError


@dataclass(frozen=True, slots=True)
class Derived:
    """One step from one recording to the next, e.g. by `specdiff shrink` or `specdiff redact`."""

    how: str  # the command (shrink, redact, ...) or the option of `specdiff record` (sample, no-tokens)
    source: str  # sha256 of the file it was made from
    # What was left out or replaced, in words. It must not name a request: `redact` keeps it.
    says: str
    requests_left_out: int  # if not 0, the server's values for whole batches are not captured

    @property
    def replaces_tokens(self) -> bool:
        """Whether this step replaced token ids.

        `shrink` keeps them on request; whether it did is only in `says`.
        """
        if self.how == "shrink":
            return f"; {contents_left_by_shrink(keep_tokens=True)};" not in self.says
        return self.how in ("redact", "no-tokens")


def contents_left_by_shrink(*, keep_tokens: bool) -> str:
    """The part of a shrink step's `says`, between two semicolons, about contents."""
    replaced = "" if keep_tokens else "tokens, ids, the command line and paths replaced, "
    return f"{replaced}what was in routed rows left out"


def derived_to_json(steps: tuple[Derived, ...]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(step) for step in steps]


def derived_from_json(raw: Any) -> tuple[Derived, ...]:
    """The inverse of `derived_to_json`. Raises RecordingError if `raw` does not have that form."""
    names = {field.name for field in dataclasses.fields(Derived)}
    if not isinstance(raw, list) or any(
        not isinstance(item, dict) or item.keys() != names for item in raw
    ):
        raise RecordingError(
            f"/manifest derived: expected a list of {', '.join(sorted(names))}. "
            "Copy the file again from where it was made."
        )
    return tuple(Derived(**item) for item in raw)
