"""A process that hands a recording's records to a real JournalWriter.

A statement from the test says when, and what else to do.

argv: journal, recording, number of repetitions, room in bytes, durability, statement. The statement
may use `writer`, `path`, `records`, `hand_over(first, last)` and `wait_for(condition)`. Prints how
many records were handed over.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).parent


def main(
    journal_path: str, recording: str, times: str, room: str, durability: str, then: str
) -> None:
    from journalled import records_of
    from specdiff.recorders import hdf5, journal
    from specdiff.recorders.capture.config import EVERY_STEP
    from specdiff.recorders.capture.writer import JournalWriter
    from specdiff.recorders.run import Stats
    from specdiff.recorders.schema import Kind

    path, records = Path(journal_path), records_of(hdf5.load(Path(recording)), int(times))
    handed = [1]

    def failed(error: Exception) -> None:
        print(f"failed: {error!r}", file=sys.stderr, flush=True)

    def stats(closed: bool) -> Stats:
        return Stats(handed[0], 0, 0, None, None, None, None, 0, closed)

    def hand_over(first: int, last: int | None = None) -> None:
        """Hand over records until the writer stops for good.

        While there is no room for a record, wait.
        """
        for type, payload in records[first:last]:
            while not writer.has_room(len(payload)) and not writer.stopped:
                time.sleep(0.005)
            if writer.stopped:
                break
            writer.put(type, payload, len(payload))
            handed[0] += 1
            if type == Kind.RESULT:
                writer.commit()
        print(handed[0], flush=True)

    first = journal.frame(*records[0])
    every_step = durability == EVERY_STEP
    writer = JournalWriter(path, first, int(room), stats, failed, every_step)
    exec(then, {**globals(), "writer": writer, "path": path, "records": records} | locals())  # noqa: S102 (the test supplies it)


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited, but the condition did not become true"
        time.sleep(0.01)


if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))
    main(*sys.argv[1:])
