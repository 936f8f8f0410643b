"""What an older format version cannot hold: if such a value is absent, that says nothing about what happened."""

from __future__ import annotations

from collections.abc import Mapping

from ..recorders.recording import TABLE_NAMES, Recording
from ..recorders.schema import columns_in
from .quantity import Quantity

# Where a quantity, or a branch of `exercised`, is read from if a later format version added that
# place. Written "table.column", or "table" for a whole table.
QUANTITIES: Mapping[Quantity, str] = {
    Quantity.SPEC_HISTOGRAM: "finishes.histogram_sum",
    Quantity.RELEASED_LEN: "releases.released_len",
    Quantity.SESSION_COMMITTED: "saves",
}
BRANCHES: Mapping[str, str] = {
    "grammar-done": "result_rows.grammar_done",
    "release-trimmed": "releases.released_len",
    "turn-kept": "saves",
    "turn-trimmed": "saves",
    "turn-aborted": "saves",
    "turn-retracted": "saves",
    "turn-inherits": "restores",
    "paused-in-place": "controls",
    "paused-retracting": "controls",
    "weights-changed": "controls",
    "cache-flushed": "controls",
}


def holds(version: int, place: str) -> bool:
    """Whether files of this version have that table or column."""
    table, _, name = place.partition(".")
    columns = columns_in(version, table, TABLE_NAMES[table])
    return name in columns if name else bool(columns)


def holds_quantity(recording: Recording, quantity: Quantity) -> bool:
    """Whether the recording's format version can hold this quantity."""
    return quantity not in QUANTITIES or holds(recording.version, QUANTITIES[quantity])


def branches_not_held(recording: Recording) -> tuple[str, ...]:
    """Return the branches that the recording's format version cannot hold."""
    return tuple(name for name, place in BRANCHES.items() if not holds(recording.version, place))


def not_in(version: int) -> str:
    """Return the reason to print for a missing value."""
    return f"not in format version {version}"
