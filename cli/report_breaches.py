"""Every breach of a law as a JSON line, for whoever has to go through all requests that it concerns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..replay.laws.law import Breach, Law, State


def lines(file: Path, breaches: Iterable[tuple[Law, State, Breach]]) -> Iterator[str]:
    """`request`: null for a whole batch; the law allows `low` to `high`."""
    for law, state, breach in breaches:
        yield json.dumps(
            {
                "recording": str(file),
                "law": law.name,
                "state": state.value,
                "event": breach.event,
                "step": breach.step,
                "kind": breach.kind.name.lower(),
                "request": breach.rid,
                "found": breach.found,
                "low": breach.low,
                "high": breach.high,
            }
        )
