"""The history of the books over one recording, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from ..replay.history import Chapter
from ..replay.verdict import QuantityResult
from . import report_json
from .console import Output, write_json
from .report_replay import fixes, where

SCHEMA_VERSION = 1


def print_table(recording: str, chapters: Sequence[Chapter]) -> None:
    console = Output()
    ends = f"{chapters[0].path} to {chapters[-1].path}"
    if chapters[-1].same_code and all(one.same_code for one in chapters[1:]):
        console.print(
            f"{recording}: same books from {ends}: {len(chapters)} versions with the same code"
        )
        return
    console.print(Text.assemble((recording, "bold"), f"  {ends}"))
    console.print()
    table = console.table(
        "version", "books", "quantity", "differed", "of", "first divergence", "fixes", right=(3, 4)
    )
    for chapter in chapters:
        _add(table, chapter)
    console.print(table)
    console.print()
    console.print(f"{len(chapters)} versions: {_in_all(chapters)}.")


def _in_all(chapters: Sequence[Chapter]) -> str:
    if not any(chapter.compared for chapter in chapters):
        return "nothing could be compared"
    changed = sum(chapter.changed for chapter in chapters)
    return f"{changed} of them changed the books of this recording"


def _add(table: Any, chapter: Chapter) -> None:
    """Add one row per quantity that changed, or a single row if none did, with the reason."""
    books = (chapter.digest or "-")[:8]
    if chapter.why is not None:
        table.add_row(str(chapter.path), books, Text(chapter.why, "yellow"))
    elif not chapter.changed:
        counts = ("0", str(chapter.num_compared)) if chapter.num_compared else ()
        table.add_row(str(chapter.path), books, Text(chapter.says, "dim"), *counts)
    else:
        for place, one in enumerate(_changed(chapter)):
            lead = (str(chapter.path), books) if not place else ("", "")
            assert one.first is not None
            counts = str(one.num_differed), str(one.num_compared)
            table.add_row(*lead, one.quantity.value, *counts, where(one.first), fixes(one.first))


def _changed(chapter: Chapter) -> list[QuantityResult]:
    return [one for one in chapter.result.quantities if one.first] if chapter.result else []


def print_json(recording: str, chapters: Sequence[Chapter]) -> None:
    told = {
        "schema_version": SCHEMA_VERSION,
        "recording": recording,
        "versions": [
            {
                "path": str(chapter.path),
                "books": chapter.digest,
                "says": chapter.says,
                "changed": chapter.changed,
                "compared": chapter.num_compared,
                "why_skipped": chapter.why,
                "quantities": {
                    one.quantity.value: report_json.quantity_to_json(one)
                    for one in _changed(chapter)
                },
            }
            for chapter in chapters
        ],
    }
    write_json(told)
