"""Random cuts of real recordings, and ledgers numbered by the events of the uncut recording."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from specdiff.recorders.cut import Cutter
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import Kind
from specdiff.replay.ledger import Series

SOURCE = "0" * 64
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """A cut recording.

    `event[i]`: the number that its event `i` had in the uncut recording; -1 for a GAP.
    """

    recording: Recording
    requests: Mask
    event: NDArray[np.int64]


def cut(cutter: Cutter, requests: Mask, events: Mask) -> Cut:
    made = cutter(requests, events)
    kept = np.flatnonzero(
        cutter.concerned(requests) & events & (cutter.recording.events.kind != Kind.GAP)
    )
    event = np.full(len(made.events.kind), -1)
    event[made.events.kind != Kind.GAP] = kept
    return Cut(made, requests, event)


def some_requests(recording: Recording, chance: random.Random) -> Mask:
    """Choose between one request and all but one."""
    size = len(recording.rids)
    wanted = chance.sample(range(size), chance.choice((1, 1, 2, 3, max(1, size // 2), size - 1)))
    return np.isin(np.arange(size), wanted)


def some_events(recording: Recording, chance: random.Random) -> Mask:
    """Leave out the head, the tail, a stretch in the middle, or two single steps."""
    size = len(recording.events.kind)
    keep = np.ones(size, dtype=bool)
    one, two = sorted(chance.sample(range(size + 1), 2))
    sort = chance.choice(("head", "tail", "middle", "steps"))
    if sort == "steps":
        steps = recording.events.iteration
        lost = chance.sample(sorted(set(steps.tolist())), 2)
        keep[np.isin(steps, lost)] = False
    else:
        start, stop = {"head": (0, one), "tail": (two, size), "middle": (one, two)}[sort]
        keep[start:stop] = False
    return keep


def values_at(
    series: Series, event: NDArray[np.int64], qid: NDArray[np.int64]
) -> dict[tuple[int, int, int], tuple[int, ...]]:
    """Return (event, request, moment) -> value of the captured cells.

    `event` and `qid` translate the numbers.
    """
    return dict(_values(series, event, qid))


def _values(
    series: Series, event: NDArray[np.int64], qid: NDArray[np.int64]
) -> Iterator[tuple[tuple[int, int, int], tuple[int, ...]]]:
    cells = series.cells
    for at in np.flatnonzero(series.captured.numpy()).tolist():
        place = int(event[cells.event[at]]), int(qid[cells.qid[at]]), int(cells.moment[at])
        yield place, tuple(series.values[at].tolist())
