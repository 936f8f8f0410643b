"""Reading a file of responses: a JSON object, or a list of them, a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from ...recorders.errors import RecordingError
from .facts import Fact, Ints, Value
from .response import Reader, Response


@dataclass(frozen=True, slots=True)
class Responses:
    """`whole`: by request id, in the order of the file; `parts`: events of streams before their last."""

    whole: dict[str, list[Response]]
    unnamed: tuple[int, ...]  # lines that name no request, such as an error's
    num_parts: int
    unfinished: tuple[str, ...]  # streams whose last event is not there

    @property
    def num_whole(self) -> int:
        return sum(map(len, self.whole.values()))


def load(path: Path) -> Responses:
    """Raises RecordingError naming the line that cannot be read."""
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
                f"{where}, line {number}: not JSON ({error}). One response a line was expected, as the server sent it."
            ) from error
        reader = Reader(where, number)
        for one in raw if isinstance(raw, list) else [raw]:
            yield reader.read(one)


def _sorted(found: Iterable[Response]) -> Responses:
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
    """A stream tells everything so far each time, or only what is new: then its lists are put together."""
    events = [*parts, last]
    ids = [one.output_ids for one in events if one.output_ids is not None]
    if parts and ids and not _all_told(ids, last.says.values.get(Fact.COMPLETION_TOKENS)):
        last = last.with_ids(np.concatenate(ids))
    counts = [one.says.values.get(Fact.LOGPROBS) for one in events]
    if last.all_logprobs not in (
        None,
        counts[-1],
    ):  # before 0.5.11 a stream tells all of them each time
        last = last.with_logprobs(sum(count for count in counts if isinstance(count, int)))
    return last


def _all_told(ids: list[Ints], count: Value | None) -> bool:
    """Whether the last event has them all: as many as it says. Where neither it nor all together have that many, or it
    does not say: those before, each time, and more. Slices of a model that repeats itself look like that, too."""
    lengths = [len(one) for one in ids]
    if count in (lengths[-1], sum(lengths)):
        return lengths[-1] == count
    return all(np.array_equal(before, after[: len(before)]) for before, after in pairwise(ids))
