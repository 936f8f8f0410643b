"""The books of a recording as a Parquet file. Only this module imports pyarrow, which `specdiff[parquet]` installs."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..recorders.errors import UsageError
from ..recorders.recording import Recording
from ..recorders.schema import NONE64, Kind
from ..recorders.scratch import scratch

if TYPE_CHECKING:
    from ..replay.flat import Flat


def check_installed() -> None:
    """Raises UsageError if pyarrow is missing. Called before anything is replayed."""
    if importlib.util.find_spec("pyarrow") is None:
        raise UsageError(
            "--format parquet needs pyarrow, which is not installed. Run `pip install 'specdiff[parquet]'`, or use jsonl."
        )


def write(recording: Recording, tables: Sequence[Flat], output: Path) -> None:
    """Write the complete file, or nothing if that fails. One row group per quantity."""
    import pyarrow.parquet

    made = [_table(recording, table) for table in tables]
    with scratch(output) as file:
        with pyarrow.parquet.ParquetWriter(file, made[0].schema) as writer:
            for table in made:
                writer.write_table(table)
        file.flush()
        Path(file.name).replace(output)


def _table(recording: Recording, table: Flat) -> Any:
    import pyarrow

    from ..replay.cells import Moment

    count = len(table.event)
    moments = [moment.name.lower() for moment in Moment]
    kinds = ["", *(kind.name.lower() for kind in Kind)]  # values of Kind start at 1
    assert [kind.value for kind in Kind] == list(range(1, len(kinds)))
    columns = {
        "event": pyarrow.array(table.event),
        "step": pyarrow.array(table.step),
        "kind": _named(kinds, table.kind),
        "moment": _named(moments, table.moment),
        "rid": _named(list(recording.rids), table.qid),
        "quantity": _named([table.quantity.value], np.zeros(count, dtype=np.int64)),
        "part": _named(list(table.parts), table.part if table.parts else np.full(count, -1)),
    }
    for path in table.paths:
        absent = ~path.captured | (path.values == NONE64)
        columns[path.path] = pyarrow.array(path.values, mask=absent)
        columns[f"{path.path} captured"] = pyarrow.array(path.captured)
    return pyarrow.table(columns)


def _named(names: list[str], index: Any) -> Any:
    """A dictionary-encoded column of `names` by index. A negative index is null."""
    import pyarrow

    numbers = pyarrow.array(index.astype(np.int32), mask=index < 0)
    return pyarrow.DictionaryArray.from_arrays(numbers, pyarrow.array(names, pyarrow.string()))
