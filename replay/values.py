"""The values that one path computes over a recording, for tests: public, and kept stable for the tests that were exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from ..recorders import hdf5
from ..recorders.errors import NoVerdictError
from ..recorders.recording import Recording
from . import spec
from .cells import Moment
from .columns.shared import Columns
from .explain import Toggles
from .ledger import Series
from .quantity import Quantity
from .verdict import Finish, Histogram, Rows, Value, ledger_of, value_of

Key = tuple[int, str | None, str]
Plain = int | str | None | tuple[int | str | None, ...]


class Values(dict[Key, Plain]):
    """(event, request, "before" or "after" that event) -> value, of every value that was captured.

    `request` is None where the value is of a whole batch. A value is a number or sglang's None; (start, end) for rows;
    (reason, finished_len) for a finish, None where the request goes on; (steps, drafts) for a histogram. Asking for one
    that the path does not compute there raises NoVerdictError.
    """

    def __init__(self, path: str, quantity: str) -> None:
        super().__init__()
        self.path, self.quantity = path, quantity

    def __missing__(self, key: Key) -> Plain:
        event, request, moment = key
        raise NoVerdictError(
            f"{self.path} computes no {self.quantity} {moment} event {event} of {request or 'the batch'}: "
            "what it needs is not in this recording, or this is not the recording that was meant."
        )


def values(recording: str | Path, path: str, quantity: str, repo: str | None = None) -> Values:
    """What `path` (as `specdiff replay --old` takes it) computes of a quantity (by its name) over a recording (a file).

    `repo`: the git clone that a path sglang@REV names a commit of. Raises SpecdiffError where the recording cannot be
    read, or the path does not exist or cannot run on it.
    """
    loaded = hdf5.load(Path(recording))
    return values_of(loaded, spec.parse(path, repo), Quantity(quantity))


def values_of(recording: Recording, path: spec.Path, quantity: Quantity) -> Values:
    columns = Columns(recording)
    series = ledger_of(columns, Toggles(columns, (quantity,)), path, (quantity,))[quantity]
    return values_in(recording, path, series, series.captured)


def values_in(recording: Recording, path: spec.Path, series: Series, cells: Tensor) -> Values:
    """Of these cells (bool) of a series that the path computed."""
    found = Values(str(path), series.quantity.value)
    for cell in np.flatnonzero(cells.numpy()).tolist():
        found[_key(recording, series, cell)] = _plain(value_of(series, cell))
    return found


def _key(recording: Recording, series: Series, cell: int) -> Key:
    cells = series.cells
    qid, moment = int(cells.qid[cell]), Moment(int(cells.moment[cell]))
    return (
        int(cells.event[cell]),
        None if qid < 0 else recording.rids[qid],
        moment.name.lower(),
    )


def _plain(value: Value) -> Plain:
    if isinstance(value, Rows):
        return (value.start, value.end)
    if isinstance(value, Finish):
        return None if value.reason is None else (value.reason.name.lower(), value.length)
    return (value.steps, value.drafts) if isinstance(value, Histogram) else value
