"""A recorder without sglang: the parts of a scheduler and a request that it needs.

Also reads its journal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from specdiff.recorders import journal
from specdiff.recorders.capture.probe import Probe, wrap
from specdiff.recorders.capture.recorder import Recorder
from specdiff.recorders.run import Stats, stats_from_json
from specdiff.recorders.schema import Kind
from specdiff.recorders.wire import unpack_event
from strategies import RUN


class Thing:
    pass


class Owner:
    """The parts of a scheduler that a recorder needs."""

    forward_ct = 7


class RequestStub:
    """The parts of a request that `describe` needs."""

    origin_input_ids = ()

    def __init__(self, rid: Any) -> None:
        self.rid = rid


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def recorder(owner: Owner, tmp_path: Path) -> Iterator[Recorder]:
    made = Recorder(owner, tmp_path / "j", max_bytes=2000, run=RUN)
    yield made
    made.close()


def events(path: Path) -> list[tuple[Kind, int]]:
    """Return (kind, first field) of every event."""
    records = [record for record in journal.scan(path).records if record.type < 100]
    unpacked = [unpack_event(Kind(record.type), record.payload) for record in records]
    return [(event.kind, event.fields[0]) for event in unpacked]


def last_stats(path: Path) -> Stats:
    records = [item for item in journal.scan(path).records if item.type == journal.Type.STATS]
    return stats_from_json(records[-1].payload)


def hook(recorder: Recorder | None, original: Callable[..., Any], probe: Probe) -> Any:
    return wrap(original, "role", probe, lambda args: recorder)


def raising(error: BaseException) -> Callable[..., Any]:
    def probe(*_: Any, **__: Any) -> Any:
        raise error

    return probe
