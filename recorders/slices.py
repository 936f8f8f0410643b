"""Select the tokens of `Recording.tokens` that belong to some of the requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .recording import Recording, row_starts
from .schema import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .schema import I64


def kept_tokens(
    recording: Recording, requests: NDArray[np.bool_], results: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], I64]:
    """Return a mask of the tokens of `requests` (bool, by qid) in `results` (bool, by row), and how
    many tokens each kept result has left.

    Every row of a result has the same number of tokens, padded to the stride. If a result's tokens
    cannot be divided evenly, it is unknown which request they belong to. They are kept if all rows
    of the result are, and left out otherwise.
    """
    table, rows = recording.results, requests[recording.result_rows.qid]
    counts, sizes = table.num_tokens, table.num_rows
    width = recording.result_width
    kept_rows = np.bincount(recording.owner(Kind.RESULT)[rows], minlength=len(sizes))
    result = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(result)) - row_starts(counts)[result]
    row = row_starts(sizes)[result] + place // np.maximum(width[result], 1)
    even = width[result] > 0
    mine = np.where(
        even, np.append(rows, False)[np.where(even, row, -1)], (kept_rows == sizes)[result]
    )
    mask = mine & results[result]
    left = np.bincount(result[mask], minlength=len(counts)).astype(np.int64)
    return mask, left[results]
