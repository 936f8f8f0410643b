"""Every breach of a law as one JSON line, to find all requests that it concerns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..replay.laws.law import Breach, Law, State


def lines(file: Path, breaches: Iterable[tuple[Law, State, Breach]]) -> Iterator[str]:
    for law, state, breach in breaches:
        head = {"recording": str(file), "law": law.name, "state": state.value}
        yield json.dumps({**head, **breach_to_json(breach)})


def breach_to_json(breach: Breach) -> dict[str, Any]:
    """`request` is null for a whole batch. `found` is the value of `counted`, for which the law allows `low` to `high`."""
    return {
        "event": breach.event,
        "step": breach.step,
        "kind": breach.kind.name.lower(),
        "request": breach.rid,
        "counted": breach.counted,
        "found": breach.found,
        "low": breach.low,
        "high": breach.high,
    }
