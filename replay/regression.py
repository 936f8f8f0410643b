"""What a regression test of a divergence says: where, what went wrong, and every value as it ought to be."""

from __future__ import annotations

from dataclasses import dataclass

from ..recorders.errors import NoVerdictError, UsageError
from ..recorders.recording import Recording
from .cells import Moment
from .quantity import Quantity
from .shrink.shrink import target
from .spec import Path
from .values import Key, Plain, Values, values_of
from .verdict import Divergence, replay

_MAX_VALUES = 200  # more than anybody reads in a test


@dataclass(frozen=True, slots=True)
class Regression:
    """The first divergence of `quantity`; `key` is its place in `expected`, what the second path computes."""

    recording: Recording
    old: Path
    new: Path
    quantity: Quantity
    first: Divergence
    key: Key
    was: Plain
    expected: Values
    num_wrong: int  # values that the first path computes otherwise


def regression(recording: Recording, old: Path, new: Path, quantity: Quantity | None) -> Regression:
    """`quantity`: None for the first that differs. Raises NoVerdictError where the paths do not part, UsageError where
    there are too many values to write down."""
    wanted = None if quantity is None else [quantity]
    result = replay(recording, old, new, wanted)
    chosen = target(result)
    (made,) = (found for found in result.quantities if found.quantity is chosen)
    was, expected = (values_of(recording, path, chosen) for path in (old, new))
    if len(expected) > _MAX_VALUES:
        raise UsageError(
            f"{len(expected)} values of {chosen.value}: too many for a test (at most {_MAX_VALUES}). "
            "First `specdiff shrink` the recording."
        )
    wrong = [key for key in expected if key in was and was[key] != expected[key]]
    if made.first is None or not wrong:
        raise NoVerdictError(f"{old} and {new} do not part over {chosen.value}.")
    key = min(wrong, key=lambda key: (key[0], Moment[key[2].upper()]))
    return Regression(
        recording, old, new, chosen, made.first, key, was[key], expected, made.num_differed
    )
