"""What clients of the real servers in fixtures/served received, compared with the recordings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from specdiff.fixtures import make_served
from specdiff.recorders import hdf5
from specdiff.recorders.recording import Recording
from specdiff.replay.reconcile.facts import Fact
from specdiff.replay.reconcile.read import load
from specdiff.replay.reconcile.reconcile import FactResult, Reconciled, reconcile

OLD, NEW = "0.5.12", "0.5.23"
RID, OTHER = "http-3-16", "http-3-8"  # RID asked for everything and got all of it
JsonAnswer = dict[str, Any]


def path(release: str) -> Path:
    return make_served.FOLDER / f"{release}.h5"


def answers(release: str) -> list[Any]:
    lines = path(release).with_suffix(".jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def answer(release: str, rid: str = RID) -> JsonAnswer:
    """Return the answer to one request, in any of its forms. Of a stream, return the last event."""
    flat = [
        one for line in answers(release) for one in (line if isinstance(line, list) else [line])
    ]
    last: JsonAnswer
    *_, last = (one for one in flat if (one.get("meta_info") or one).get("id") == rid)
    return last


def held(
    tmp_path: Path, *lines: object, recording: Recording | None = None, release: str = NEW
) -> Reconciled:
    """Compare these responses with that recording."""
    file = tmp_path / "responses.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return reconcile(recording or hdf5.load(path(release)), load(file))


def of(found: Reconciled, fact: Fact) -> FactResult:
    return next(one for one in found.facts if one.fact is fact)


def differing(found: Reconciled) -> set[Fact]:
    return {one.fact for one in found.facts if one.differences}


def compared(found: Reconciled) -> set[Fact]:
    return {one.fact for one in found.facts if one.num_compared}


def stream(rid: str) -> list[JsonAnswer]:
    return [one for one in answers(NEW) if "meta_info" in one and one["meta_info"]["id"] == rid]
