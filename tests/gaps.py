"""Recordings that lack something: events that a recorder under load lost, or what a server does not tell."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specdiff.recorders.recording import Recording, columns
from specdiff.recorders.schema import EVENT_TABLES, NONE64, ROW_TABLES, Kind


def without(recording: Recording, start: int, stop: int) -> Recording:
    """Return the recording without its events [start, stop); a GAP replaces them."""
    keep = np.ones(len(recording.events.kind), dtype=bool)
    keep[start:stop] = False
    tables: dict[str, Any] = {}
    for kind, table in EVENT_TABLES.items():
        mine = keep[recording.event_of(kind)]
        tables[table.__name__.lower()] = _masked(recording.event_table(kind), mine)
        if kind in ROW_TABLES:
            owner = recording.owner(kind)
            tables[f"{kind.name.lower()}_rows"] = _masked(recording.row_table(kind), mine[owner])
    lost = ~np.isin(tables["results"].launch, tables["launches"].launch)
    launch = np.where(lost, NONE64, tables["results"].launch)
    tables["results"] = dataclasses.replace(tables["results"], launch=launch)
    before = np.searchsorted(recording.event_of(Kind.GAP), start)
    dropped = np.insert(tables["gaps"].dropped, before, stop - start)
    tables["gaps"] = dataclasses.replace(recording.gaps, dropped=dropped)
    results, finishes = keep[recording.event_of(Kind.RESULT)], keep[recording.event_of(Kind.FINISH)]
    return dataclasses.replace(
        recording,
        events=_spine(recording, start, stop),
        tokens=recording.tokens[np.repeat(results, recording.results.num_tokens)],
        experts=recording.experts[np.repeat(finishes, recording.finishes.experts_stored)],
        indexer=recording.indexer[np.repeat(finishes, recording.finishes.indexer_stored)],
        **tables,
    )


def ended(recording: Recording, stop: int) -> Recording:
    """Return the recording without its events from `stop` on, as a killed scheduler leaves it.

    There is no GAP at the end.
    """
    cut = without(recording, stop, len(recording.events.kind))
    events = type(cut.events)(*(values[:-1] for _, values in columns(cut.events)))
    gaps = dataclasses.replace(cut.gaps, dropped=cut.gaps.dropped[:-1])
    return dataclasses.replace(cut, events=events, gaps=gaps, stats=None)


def without_start(recording: Recording) -> Recording:
    """Return the recording as a server up to 0.5.11 leaves it, which is not told the `start_len`."""
    finishes, requests = recording.finishes, recording.requests
    return dataclasses.replace(
        recording,
        finishes=dataclasses.replace(finishes, start_len=np.full_like(finishes.start_len, NONE64)),
        requests=dataclasses.replace(requests, start_len=np.full_like(requests.start_len, NONE64)),
    )


def _masked(table: Any, mask: NDArray[np.bool_]) -> Any:
    return type(table)(*(values[mask] for _, values in columns(table)))


def _spine(recording: Recording, start: int, stop: int) -> Any:
    """Return the events before, one GAP, and the events after, with their rows numbered anew."""
    parts = []
    for name, values in columns(recording.events):
        gap = int(Kind.GAP) if name == "kind" else values[start]
        parts.append(np.concatenate([values[:start], [gap], values[stop:]]))
    kind, ref = parts[0], parts[1]
    for value in np.unique(kind):
        ref[kind == value] = np.arange(np.count_nonzero(kind == value))
    return type(recording.events)(*parts)
