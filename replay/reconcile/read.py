"""Read a file of responses. Each line is a JSON object or a list of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from ...recorders.errors import RecordingError
from .facts import Fact, FactValue, Ints
from .response import Reader, Response


@dataclass(frozen=True, slots=True)
class Responses:
    """The responses of a file. `whole` holds them by request id, in the order of the file."""

    whole: dict[str, list[Response]]
    unnamed: tuple[int, ...]  # lines that name no request, such as an error's
    num_parts: int  # events of streams, the last events not counted
    unfinished: tuple[str, ...]  # streams without their last event

    @property
    def num_whole(self) -> int:
        return sum(map(len, self.whole.values()))


def load(path: Path) -> Responses:
    """Read a file. Raises RecordingError that names the line that cannot be read."""
    try:
        with path.open(encoding="utf-8") as lines:
            return _sorted(_each(str(path), lines))
    except FileNotFoundError as error:
        raise RecordingError(f"{path}: no such file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecordingError(f"{path}: cannot be read as text ({error}).") from error


def _each(where: str, lines: Iterable[str]) -> Iterator[Response]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            raw = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RecordingError(
                f"{where}, line {number}: not JSON ({error}). Expected one response per line, as the server sent it."
            ) from error
        reader = Reader(where, number)
        for one in raw if isinstance(raw, list) else [raw]:
            yield reader.read(one)


def _sorted(found: Iterable[Response]) -> Responses:
    """Group the responses by request id, and join the events of each stream."""
    whole: dict[str, list[Response]] = {}
    parts: dict[str, list[Response]] = {}
    unnamed, num_parts = [], 0
    for one in found:
        if one.rid is None:
            unnamed.append(one.line)
        elif one.finished:
            whole.setdefault(one.rid, []).append(_joined(parts.pop(one.rid, []), one))
        else:
            parts.setdefault(one.rid, []).append(one)
            num_parts += 1
    return Responses(whole, tuple(unnamed), num_parts, tuple(parts))


def _joined(parts: list[Response], last: Response) -> Response:
    """Return the last event of a stream, completed from the events before it.

    An event of a stream holds either everything so far or only what is new. If it holds only what is
    new, the lists of all events are joined.
    """
    events = [*parts, last]
    ids = [one.output_ids for one in events if one.output_ids is not None]
    if ids and not _all_told(ids, last.says.values.get(Fact.COMPLETION_TOKENS)):
        last = last.with_ids(np.concatenate(ids))
    counts = [one.says.values.get(Fact.LOGPROBS) for one in events]
    # With equal counts, or none, the last event holds them all, as in every stream before 0.5.11.
    if last.all_logprobs not in (None, counts[-1]):
        last = last.with_logprobs(sum(count for count in counts if isinstance(count, int)))
    return last


def _all_told(ids: list[Ints], count: FactValue | None) -> bool:
    """Whether the last event of a stream has all output ids.

    `count` is the number of tokens that the last event reports. If either the last event or all
    events together have that many, that decides. Otherwise each event must begin with the ids of the
    one before. Slices from a model that repeats itself can look like that too.
    """
    lengths = [len(one) for one in ids]
    if count in (lengths[-1], sum(lengths)):
        return lengths[-1] == count
    return all(np.array_equal(before, after[: len(before)]) for before, after in pairwise(ids))
