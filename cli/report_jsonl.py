"""The books of a recording as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..recorders.recording import Recording
from ..recorders.schema import NONE64, Kind
from ..recorders.scratch import scratch
from ..replay.cells import Moment
from ..replay.flat import Flat


def write(recording: Recording, tables: Sequence[Flat], output: Path) -> None:
    """Write the complete file, or nothing if that fails."""
    with scratch(output) as file:
        for table in tables:
            file.writelines(json.dumps(row).encode() + b"\n" for row in rows(recording, table))
        file.flush()
        Path(file.name).replace(output)


def rows(recording: Recording, table: Flat) -> Iterator[dict[str, Any]]:
    kinds = {kind.value: kind.name.lower() for kind in Kind}
    moments = {moment.value: moment.name.lower() for moment in Moment}
    places = zip(
        *(c.tolist() for c in (table.event, table.step, table.kind, table.moment, table.qid)),
        table.part.tolist(),
        *(zip(p.values.tolist(), p.captured.tolist(), strict=True) for p in table.paths),
        strict=True,
    )
    for event, step, kind, moment, qid, part, *said in places:
        row: dict[str, Any] = {
            "event": event,
            "step": step,
            "kind": kinds[kind],
            "moment": moments[moment],
            "rid": recording.rids[qid] if qid >= 0 else None,
            "quantity": table.quantity.value,
            "part": table.parts[part] if table.parts else None,
        }
        for path, (value, captured) in zip(table.paths, said, strict=True):
            row[path.path] = value if captured and value != NONE64 else None
            row[f"{path.path} captured"] = captured
        yield row
