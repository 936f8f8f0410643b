"""The values that one path computes over a recording.

Exported tests use this, so it is public and kept stable.
"""

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
from .verdict import FinishDecision, HistogramSums, RowSpan, Value, ledger_of, value_of

Key = tuple[int, str | None, str]
Plain = int | str | None | tuple[int | str | None, ...]


class Values(dict[Key, Plain]):
    """Maps (event, request, "before" or "after") to a value, for every value that was captured.

    `request` is None if the value belongs to a whole batch. A value is a number or sglang's None,
    with these exceptions: rows are (start, end), a finish is (reason, finished_len) or None if the
    request continues, and a histogram is (steps, drafts). Looking up a key that the path does not
    compute raises NoVerdictError.
    """

    def __init__(self, path: str, quantity: str) -> None:
        super().__init__()
        self.path, self.quantity = path, quantity

    def __missing__(self, key: Key) -> Plain:
        event, request, moment = key
        raise NoVerdictError(
            f"{self.path} computes no {self.quantity} {moment} event {event} of {request or 'the batch'}: "
            "this recording does not hold the values that it needs, or it is not the intended recording."
        )


def values(recording: str | Path, path: str, quantity: str, repo: str | None = None) -> Values:
    """Return the values of one quantity (by name) that a path computes over a recording file.

    `path` is written as for `specdiff replay --old`, and `repo` is the git clone for a path
    sglang@REV. Raises SpecdiffError if the recording cannot be read, or if the path does not exist
    or cannot run on it.
    """
    loaded = hdf5.load(Path(recording))
    return values_of(loaded, spec.parse(path, repo), Quantity(quantity))


def values_of(recording: Recording, path: spec.Path, quantity: Quantity) -> Values:
    """Like `values`, for a recording that is already loaded."""
    columns = Columns(recording)
    series = ledger_of(columns, Toggles(columns, (quantity,)), path, (quantity,))[quantity]
    return values_in(recording, path, series, series.captured)


def values_in(recording: Recording, path: spec.Path, series: Series, cells: Tensor) -> Values:
    """Return the values at the cells (bool mask) of a series that the path computed."""
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
    if isinstance(value, RowSpan):
        return (value.start, value.end)
    if isinstance(value, FinishDecision):
        return None if value.reason is None else (value.reason.name.lower(), value.length)
    return (value.steps, value.drafts) if isinstance(value, HistogramSums) else value
