"""The timeline of a request as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ..recorders.errors import printable_id
from ..replay.timeline import Committed, RequestTimeline, TimelineEntry
from .console import Output


def print_timelines(found: Sequence[RequestTimeline]) -> None:
    console = Output()
    for timeline in found:
        again = f" (request number {timeline.qid})" if len(found) > 1 else ""
        console.print(Text.assemble("request ", (printable_id(timeline.rid), "bold"), again))
        names = [str(path) for path in timeline.paths]
        table = console.table(
            "step", "event", "what", "", *names, "", right=(0, 1, *range(4, 4 + len(names)))
        )
        _for_narrow_terminals(table)
        for entry in timeline.entries:
            table.add_row(*_row(entry), style="red" if entry.diverges else "")
        console.print(table)
        if same := timeline.as_observed:
            console.print(
                f"Where the paths differ, observed agrees with {' and '.join(map(str, same))}."
            )
    claimed = [
        value for timeline in found for entry in timeline.entries for value in entry.committed
    ]
    if example := next((value for value in claimed if value and value.claimed), None):
        console.print(_legend(example), style="dim")


def _for_narrow_terminals(table: Table) -> None:
    """Let the columns of the paths wrap. The rows of a finish are listed there and would leave no room for the events."""
    _, _, kind, detail, *paths, mark = table.columns
    kind.min_width, detail.min_width, mark.min_width = 7, 10, 7
    for path in paths:
        path.no_wrap, path.overflow, path.min_width = False, "fold", 8


def _legend(example: Committed) -> str:
    slots = "1 slot" if example.claimed == 1 else f"{example.claimed} slots"
    return f"{example}: {example.settled} settled, {slots} claimed for results still to come."


def _row(entry: TimelineEntry) -> list[str]:
    said = zip(entry.committed, *entry.other_values, strict=True)  # path by path
    values = [", ".join(str(value) for value in of if value is not None) for of in said]
    mark = "<- differs" if entry.diverges else ""
    return [
        str(entry.step),
        str(entry.event),
        entry.kind.words,
        entry.detail,
        *values,
        mark,
    ]
